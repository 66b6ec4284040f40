"""A run's events: server-sent events, pages of JSON, WebSocket. The same objects over all three.

How a stream ends, and what its client does then:

    terminal event      the response ends; 1000      stays away: connecting again gets 204
    too slow            comment `slow_client`; 4408  connects again with the last id it got
    server stops        comment `shutting_down`; 1012          "
    database is away    comment `unavailable`; 1013            "
    does not read       connection dropped                     "
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, ClassVar, Final, NamedTuple

import orjson
from fastapi import APIRouter, Depends, Header, Query, Response, WebSocket
from pydantic import BaseModel, Field
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from dynamic_jobs.event_log import EventPage, read_events, run_id_of
from dynamic_jobs.events import RunEvent
from dynamic_jobs.stream import ShuttingDown, StreamHub
from dynamic_jobs.stream_tail import SlowClient
from foundation.errors import Forbidden, GraphwrightError, NotFound, Unauthenticated, Unavailable
from foundation.ids import RunId, TenantId
from live_api.auth import Principal
from live_api.dependencies import (
    Services,
    bearer_subprotocol,
    require,
    require_websocket,
    services,
)
from live_api.problems import problems

router = APIRouter(prefix="/api/v1/runs", tags=["runs"])

_log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS: Final = 15
_SEND_SECONDS: Final = 30
_SHUTDOWN_SECONDS: Final = 5
_RETRY_MILLISECONDS: Final = 1_000
_ID: Final = r"[0-9]{1,18}"
_SSE: Final = "text/event-stream"

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("runs:read"))]


class BadEventId(GraphwrightError):
    """A client goes on after an event that cannot have been one of ours."""

    code: ClassVar[str] = "bad_event_id"
    status: ClassVar[int] = 400


class EventModel(BaseModel):
    """One event of a run."""

    id: str = Field(description="Opaque; the SSE id. Go on after it with `after`.")
    run_id: str
    type: str = Field(description="Ignore types that you do not know.")
    node: str | None
    item: str | None
    attempt: int
    at: str = Field(description="RFC 3339, in UTC.")
    data: dict[str, Any]


class EventPageModel(BaseModel):
    """Some events of a run, in order."""

    items: list[EventModel]
    next_cursor: str | None = Field(description="Send it as `after` for the next page, if any.")
    ended: bool = Field(description="Whether the run has ended and no event is left to come.")


@router.get(
    "/{run_id}/events",
    summary="Follow or page through a run's events",
    response_class=Response,
    responses={
        200: {"model": EventPageModel, "content": {_SSE: {"schema": {"type": "string"}}}},
        204: {"description": "To a stream's client: the run has ended, and you have seen it all."},
        **problems(400, 401, 403, 404, 422, 503),
    },
)
async def read_run_events(
    run_id: str,
    parts: Parts,
    caller: Reader,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
    last_event_id: Annotated[
        str, Header(description="Of a stream that broke off; stronger than `after`.")
    ] = "",
    after: Annotated[
        str, Query(pattern=f"^{_ID}$", description="Events after the one of this id.")
    ] = "0",
    limit: Annotated[int, Query(ge=1, le=1_000, description="Events of one page of JSON.")] = 100,
) -> Response:
    """With `Accept: text/event-stream` a stream of every event, ending with the run; else a page.

    A stream's client that connects again with `Last-Event-ID` misses nothing and gets nothing
    twice, from whichever server.
    """
    known = run_id_of(run_id)
    if _SSE not in accept.lower():
        page = await _page(parts, caller.tenant, known, int(after), limit)
        return _json_page(page)
    position = _event_id(last_event_id or after)
    page = await _page(parts, caller.tenant, known, position, 1)
    if page.ended and not page.events:
        return Response(status_code=204)
    return EventStream(_frames(parts.hub, caller.tenant, known, position))


@router.websocket("/{run_id}/ws")
async def follow_by_websocket(websocket: WebSocket, run_id: str, parts: Parts) -> None:
    """Each event as a text message of JSON; `?after=` as in the stream. Messages are ignored.

    The socket is accepted first, since a browser shows its page no other fault than a close code.
    """
    await websocket.accept(subprotocol=bearer_subprotocol(websocket))
    try:
        caller = await require_websocket("runs:read")(websocket)
        position = _event_id(websocket.query_params.get("after", "0"))
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
        sending.cancel()
        leaving.cancel()
    ended, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
    if isinstance(ended, Close):
        await _close(websocket, ended)
    elif isinstance(ended, Exception):
        raise ended


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


class EventStream(EventSourceResponse):
    """A stream of frames; a client that does not read is dropped."""

    def __init__(self, frames: AsyncGenerator[bytes]) -> None:
        super().__init__(
            frames,
            headers={"X-Accel-Buffering": "no", "Vary": "Accept"},
            ping=_HEARTBEAT_SECONDS,
            ping_message_factory=lambda: ServerSentEvent(comment="heartbeat"),
            send_timeout=_SEND_SECONDS,
            # On a signal the library would cancel the stream; the hub ends it first, in order.
            shutdown_grace_period=_SHUTDOWN_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            _log.info("a client that does not read was dropped from %s", scope["path"])


async def _frames(
    hub: StreamHub, tenant: TenantId, run_id: RunId, after: int
) -> AsyncGenerator[bytes]:
    """The stream's bytes, a batch of events at a time."""
    yield ServerSentEvent(retry=_RETRY_MILLISECONDS).encode()
    try:
        async with aclosing(hub.follow(tenant, run_id, after)) as batches:
            async for batch in batches:
                yield b"".join(map(_frame, batch))
    except GraphwrightError as error:
        # Too late for a status. The response ends, so the client connects again.
        yield ServerSentEvent(comment=f"{error.code}: {error.message}").encode()


def _frame(event: RunEvent) -> bytes:
    data = orjson.dumps(event)
    # JSON escapes what the standard takes for a line break. Some clients take these for one, too.
    for character, escaped in _LINE_BREAKS:
        data = data.replace(character, escaped)
    return b"id: %b\r\nevent: %b\r\ndata: %b\r\n\r\n" % (
        event["id"].encode(),
        event["type"].encode(),
        data,
    )


_LINE_BREAKS: Final = [
    (character.encode(), f"\\u{ord(character):04x}".encode()) for character in "\x85\u2028\u2029"
]


async def _page(
    parts: Services, tenant: TenantId, run_id: RunId, after: int, limit: int
) -> EventPage:
    async with parts.pool.connection() as connection:
        return await read_events(connection, tenant, run_id, after, limit)


def _json_page(page: EventPage) -> Response:
    content = {
        "items": page.events,
        "next_cursor": str(page.last_id) if page.full else None,
        "ended": page.ended,
    }
    return Response(
        orjson.dumps(content), media_type="application/json", headers={"Vary": "Accept"}
    )


def _event_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadEventId(
            f"{text[:40]!r} is the id of no event",
            hint="Send the id of the last event that you got, unchanged, or none at all.",
        )
    return int(text)
