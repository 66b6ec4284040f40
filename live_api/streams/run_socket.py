"""A run's events over a WebSocket: each a text message, the same objects as in the event stream.

docs/events.md has the codes with which a socket is closed.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, WebSocket

from dynamic_jobs.reading.event_log import event_id_of, run_id_of
from dynamic_jobs.reading.events import RunEvent
from dynamic_jobs.reading.stream_inbox import Inbox
from foundation.errors import GraphwrightError
from foundation.ids import RunId
from live_api.dependencies import Services, require_stream, services
from live_api.edge.callers import bearer_subprotocol
from live_api.identity import Principal
from live_api.streams.clients import Client
from live_api.streams.close_codes import GONE, Close, close, close_for, drop_when_gone
from live_api.streams.services import Streams

router = APIRouter(prefix="/api/v1/runs")


@router.websocket("/{run_id}/ws")
async def follow_by_websocket(
    websocket: WebSocket, run_id: str, parts: Annotated[Services, Depends(services)]
) -> None:
    """Each event as a text message of JSON; `?after=` as in the stream. Messages are ignored.

    The socket is accepted first, since a browser shows its page no other fault than a close code.
    """
    await websocket.accept(subprotocol=bearer_subprotocol(websocket))
    streams = parts.streams
    try:
        caller = await require_stream("runs:read")(websocket)
        position = event_id_of(websocket.query_params.get("after", "0"))
        known = run_id_of(run_id)
    except GraphwrightError as error:
        await close(websocket, close_for(error))
        return
    inbox = streams.hub.inbox()
    client = Client(websocket.url.path, caller.expires_at, inbox.cut, beat=None)
    with streams.clients.sending(client):
        leaving = asyncio.create_task(drop_when_gone(websocket, client))
        try:
            how = await _send_events(websocket, streams, caller, known, position, inbox, client)
        finally:
            leaving.cancel()
        await close(websocket, how)


def messages(events: Sequence[RunEvent]) -> list[str]:
    """Each event as a text message."""
    return [orjson.dumps(event).decode() for event in events]


async def _send_events(
    websocket: WebSocket,
    streams: Streams,
    caller: Principal,
    run_id: RunId,
    after: int,
    inbox: Inbox[RunEvent],
    client: Client,
) -> Close:
    try:
        first = await streams.hub.first_page(caller.tenant, run_id, after)
        # Only now is it known that the run is the caller's.
        with streams.presence.watching(run_id, caller.subject, "websocket"):
            following = streams.hub.follow(caller.tenant, run_id, after, first, inbox)
            async with aclosing(following) as batches:
                async for batch in batches:
                    for message in batch.made(messages):
                        client.sends_since = time.monotonic()
                        await websocket.send_text(message)
                    client.sends_since = None
    except GraphwrightError as error:
        return close_for(error)
    except GONE:
        pass  # as good as told
    return Close(1000)
