"""A run's events over a WebSocket: each a text message, the same objects as in the event stream.

1000  after the terminal event                      4401  no token, or one that is not valid
1012  the server stops: connect again               4403  the token's scopes do not allow it
1013  the database is away: connect again later     4404  no such run
4408  too slow: connect again with `?after=`        4400  `after` is the id of no event
"""

import asyncio
import logging
from contextlib import aclosing
from typing import Annotated, Final, NamedTuple

import orjson
from fastapi import APIRouter, Depends, WebSocket
from starlette.websockets import WebSocketDisconnect

from dynamic_jobs.reading.event_log import BadEventId, event_id_of, run_id_of
from dynamic_jobs.reading.stream import ShuttingDown, StreamHub, cancel
from dynamic_jobs.reading.stream_tail import SlowClient
from foundation.errors import Forbidden, GraphwrightError, NotFound, Unauthenticated, Unavailable
from foundation.ids import RunId, TenantId
from live_api.dependencies import Services, bearer_subprotocol, require_websocket, services

router = APIRouter()

_log = logging.getLogger(__name__)

_SEND_SECONDS: Final = 30


@router.websocket("/{run_id}/ws")
async def follow_by_websocket(
    websocket: WebSocket, run_id: str, parts: Annotated[Services, Depends(services)]
) -> None:
    """Each event as a text message of JSON; `?after=` as in the stream. Messages are ignored.

    The socket is accepted first, since a browser shows its page no other fault than a close code.
    """
    await websocket.accept(subprotocol=bearer_subprotocol(websocket))
    try:
        caller = await require_websocket("runs:read")(websocket)
        position = event_id_of(websocket.query_params.get("after", "0"))
        sending = asyncio.create_task(
            _send_events(websocket, parts.hub, caller.tenant, run_id_of(run_id), position)
        )
    except GraphwrightError as error:
        await _close(websocket, _close_for(error))
        return
    leaving = asyncio.create_task(_disconnected(websocket))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(sending, leaving)
    if not sending.cancelled() and (close := sending.result()):
        await _close(websocket, close)


class Close(NamedTuple):
    """How to close a WebSocket; the reason has at most 123 bytes (RFC 6455 section 5.5)."""

    code: int
    reason: str = ""


_CLOSE_CODES: Final[dict[type[GraphwrightError], int]] = {
    BadEventId: 4400,
    Unauthenticated: 4401,
    Forbidden: 4403,
    NotFound: 4404,
    SlowClient: 4408,
    ShuttingDown: 1012,
    Unavailable: 1013,
}


def _close_for(error: GraphwrightError) -> Close:
    return Close(_CLOSE_CODES.get(type(error), 1011), error.code)


async def _close(websocket: WebSocket, close: Close) -> None:
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            await websocket.close(close.code, close.reason)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        _log.debug("a client left before it was told %d", close.code)


async def _send_events(
    websocket: WebSocket, hub: StreamHub, tenant: TenantId, run_id: RunId, after: int
) -> Close | None:
    try:
        async with aclosing(hub.follow(tenant, run_id, after)) as batches:
            async for batch in batches:
                for event in batch:
                    async with asyncio.timeout(_SEND_SECONDS):
                        await websocket.send_text(orjson.dumps(event).decode())
    except GraphwrightError as error:
        return _close_for(error)
    except TimeoutError:
        _log.info("a client that does not read was dropped from run %s", run_id)
        return None
    except WebSocketDisconnect:
        return None
    return Close(1000)


async def _disconnected(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
