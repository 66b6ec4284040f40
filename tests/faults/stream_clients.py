"""Clients of live streams, with the worst of connections: they break off and go on elsewhere."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

Kind: TypeAlias = Literal["sse", "websocket", "all over sse", "all over websocket"]

TERMINAL = "run.succeeded"


@dataclass
class StreamClient:
    """One client, of one run or of all. ``got`` has the run and the id of each event, as they came.

    It resumes after the last id that it got, and nothing else.
    """

    kind: Kind
    runs: Sequence[str]
    """The runs whose ends it waits for; the first is the one that it follows, if it is one."""
    dice: random.Random
    events_a_connection: int
    """About as many as it takes before it breaks off."""
    got: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    last: str | None = None
    connections: int = 0
    ended: int = 0

    async def follow(
        self, http: httpx.AsyncClient, urls: Sequence[str], ready: asyncio.Event
    ) -> None:
        """Until the ends of all its runs were seen. ``ready`` is set once it was connected.

        ``http`` names its headers.
        """
        while self.ended < len(self.runs):
            url = self.dice.choice(urls)
            left = self.dice.randint(1, 2 * self.events_a_connection)
            stream = self._sse(http, url) if "sse" in self.kind else self._socket(http, url)
            with suppress(httpx.HTTPError, OSError, WebSocketException, TimeoutError):
                async with aclosing(stream) as events:
                    async for position, event in events:
                        ready.set()
                        self.last = position
                        if event is None:
                            continue
                        self.got.append((event["run_id"], event["id"]))
                        self.ended += event["type"] == TERMINAL
                        left -= 1
                        if left == 0 or self.ended == len(self.runs):
                            break
            self.connections += 1
            await asyncio.sleep(self.dice.uniform(0, 0.02))

    @property
    def _of_all(self) -> bool:
        return self.kind.startswith("all")

    async def _sse(
        self, http: httpx.AsyncClient, url: str
    ) -> AsyncGenerator[tuple[str, dict[str, Any] | None]]:
        headers = {"Accept": "text/event-stream"}
        if self.last is not None:
            headers["Last-Event-ID"] = self.last
        path = "/events" if self._of_all else f"/runs/{self.runs[0]}/events"
        async with http.stream("GET", f"{url}/api/v1{path}", headers=headers) as answer:
            if answer.status_code == 503:
                return
            assert answer.status_code == 200, (answer.status_code, await answer.aread())
            rest = b""
            async for part in answer.aiter_bytes():
                *frames, rest = (rest + part).split(b"\r\n\r\n")
                for frame in frames:
                    lines = dict(line.split(b": ", 1) for line in frame.split(b"\r\n"))
                    if b"id" in lines:
                        data = lines.get(b"data")
                        yield lines[b"id"].decode(), orjson.loads(data) if data else None

    @asynccontextmanager
    async def _connected(
        self, http: httpx.AsyncClient, address: str
    ) -> AsyncGenerator[ClientConnection]:
        """A socket that is cut off at the end, without a word."""
        token = {"Authorization": http.headers["Authorization"]}
        async with connect(address, additional_headers=token, proxy=None) as socket:
            try:
                yield socket
            finally:
                socket.transport.abort()

    async def _socket(
        self, http: httpx.AsyncClient, url: str
    ) -> AsyncGenerator[tuple[str, dict[str, Any] | None]]:
        """The run's own socket; or the one for many, with a subscription to all."""
        base = url.replace("http", "ws") + "/api/v1"
        if not self._of_all:
            after = f"?after={self.last}" if self.last is not None else ""
            address = f"{base}/runs/{self.runs[0]}/ws{after}"
            async with self._connected(http, address) as socket:
                async for text in socket:
                    event = orjson.loads(text)
                    yield event["id"], event
            return
        async with self._connected(http, f"{base}/ws") as socket:
            asked = {"op": "subscribe", "ref": "everything", "all": True}
            if self.last is not None:
                asked["after"] = self.last
            await socket.send(orjson.dumps(asked).decode())
            async for text in socket:
                told = orjson.loads(text)
                if told["op"] == "error":
                    assert told["code"] in {"unavailable", "shutting_down"}, told
                    return
                yield told["id"], told.get("event")
