"""Server-sent events as a response, at little cost for each client.

A stream that ends before it is over does so with a comment that names the reason. Its client
connects again with the id of the last event that it got, as browsers do (docs/events.md).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import orjson
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from dynamic_jobs.reading.events import RunEvent
from dynamic_jobs.reading.many_tail import Placed
from foundation.errors import GraphwrightError
from live_api.streams.clients import Client, Clients

SSE: Final = "text/event-stream"
HEARTBEAT: Final = b": heartbeat\r\n\r\n"
_RETRY_MILLISECONDS: Final = 1_000


class EventStream(EventSourceResponse):
    """A stream of frames, of which each is sent as it is.

    The library has four tasks for each response, and a scope for each frame, which take more than
    half of the time that a frame costs. Here is one task beside the request's own; heartbeats and
    deadlines are the business of :class:`Clients`, and the end of the process that of the streams'
    hub, which ends them in order where the library would cancel them.
    """

    body_iterator: AsyncGenerator[bytes]

    def __init__(self, frames: AsyncGenerator[bytes], clients: Clients, client: Client) -> None:
        super().__init__(frames, headers={"Vary": "Accept"}, ping=0)
        self._clients = clients
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._clients.sending(self._client):
            leaving = asyncio.create_task(self._drop_when_gone(receive))
            try:
                async with aclosing(self.body_iterator):
                    await self._send(send)
            finally:
                leaving.cancel()

    async def _send(self, send: Send) -> None:
        client = self._client
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        async for frame in self.body_iterator:
            client.sends_since = time.monotonic()
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            client.sent_at, client.sends_since = client.sends_since, None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drop_when_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._client.drop()


def opening(position: str = "") -> bytes:
    """The first frame: when to connect again, and after which event if none comes before that."""
    return ServerSentEvent(retry=_RETRY_MILLISECONDS, id=position or None).encode()


def heartbeat(position: str) -> bytes:
    """A heartbeat that says how far the stream has come, past what the client did not want."""
    return b": heartbeat\r\nid: %b\r\n\r\n" % position.encode()


def closing(error: GraphwrightError) -> bytes:
    """The last frame of a stream that is not over. Too late for a status."""
    return ServerSentEvent(comment=f"{error.code}: {error.message}").encode()


def run_frames(events: Sequence[RunEvent]) -> bytes:
    """Events of one run, each under its own id."""
    return b"".join(_frame(event["id"], event) for event in events)


def many_frames(events: Sequence[Placed]) -> bytes:
    """Events of many runs, each under its place."""
    return b"".join(_frame(str(each.position), each.event) for each in events)


def _frame(identity: str, event: RunEvent) -> bytes:
    data = orjson.dumps(event)
    # JSON escapes what the standard takes for a line break. Some clients take these for one, too.
    for character, escaped in _LINE_BREAKS:
        data = data.replace(character, escaped)
    return b"id: %b\r\nevent: %b\r\ndata: %b\r\n\r\n" % (
        identity.encode(),
        event["type"].encode(),
        data,
    )


_LINE_BREAKS: Final = [
    (character.encode(), f"\\u{ord(character):04x}".encode()) for character in "\x85\u2028\u2029"
]
