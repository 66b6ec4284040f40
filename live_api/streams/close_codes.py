"""How a WebSocket ends."""

import asyncio
import logging
from typing import Final, NamedTuple

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from dynamic_jobs.reading.event_log import BadEventId
from dynamic_jobs.reading.stream import ShuttingDown
from dynamic_jobs.reading.stream_inbox import SlowClient
from foundation.errors import (
    Forbidden,
    GraphwrightError,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from live_api.streams.clients import Client, TokenExpired

_log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 30

GONE: Final = (WebSocketDisconnect, WebSocketDisconnected)
"""What is raised where a socket is used that the client, or we, have closed."""


class Close(NamedTuple):
    """How to close a WebSocket; the reason has at most 123 bytes (RFC 6455 section 5.5)."""

    code: int
    reason: str = ""


_CODES: Final[dict[type[GraphwrightError], int]] = {
    BadEventId: 4400,
    Unauthenticated: 4401,
    TokenExpired: 4401,
    Forbidden: 4403,
    NotFound: 4404,
    SlowClient: 4408,
    RateLimited: 4429,
    ShuttingDown: 1012,
    Unavailable: 1013,
}


def close_for(error: GraphwrightError) -> Close:
    """The code of what went wrong; 1011 is for what has none."""
    kind = next((kind for kind in type(error).__mro__ if kind in _CODES), None)
    return Close(_CODES[kind] if kind else 1011, error.code)


async def close(websocket: WebSocket, how: Close) -> None:
    """Close a socket, whether or not the client still listens."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await websocket.close(how.code, how.reason)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        _log.debug("a client left before it was told %d", how.code)


async def drop_when_gone(websocket: WebSocket, client: Client) -> None:
    """Take what a client sends and forget it, until it leaves."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    client.drop()
