"""A run's events as server-sent events and as pages of JSON; ``run_socket`` has the WebSocket.

A stream that ends before its run does so with a comment that names the reason. Its client connects
again with the id of the last event that it got, as browsers do by themselves (docs/events.md).
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, Field
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from dynamic_jobs.reading.event_log import EVENT_ID, EventPage, event_id_of, read_events, run_id_of
from dynamic_jobs.reading.events import RunEvent
from dynamic_jobs.reading.stream import StreamHub
from foundation.errors import GraphwrightError
from foundation.ids import RunId, TenantId
from live_api import run_socket
from live_api.auth import Principal
from live_api.dependencies import Services, require, services
from live_api.problems import problems

router = APIRouter(prefix="/api/v1/runs", tags=["runs"])
router.include_router(run_socket.router)

_log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS: Final = 15
_SEND_SECONDS: Final = 30
_SHUTDOWN_SECONDS: Final = 5
_RETRY_MILLISECONDS: Final = 1_000
_SSE: Final = "text/event-stream"

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("runs:read"))]


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
        str, Query(pattern=EVENT_ID, description="Events after the one of this id.")
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
    position = event_id_of(last_event_id or after)
    page = await parts.hub.first_page(caller.tenant, known, position)
    if page.ended and not page.events:
        return Response(status_code=204)
    return EventStream(_frames(parts.hub, caller.tenant, known, position, page))


class EventStream(EventSourceResponse):
    """A stream of frames; a client that does not read is dropped."""

    def __init__(self, frames: AsyncGenerator[bytes], send_seconds: float = _SEND_SECONDS) -> None:
        super().__init__(
            frames,
            headers={"X-Accel-Buffering": "no", "Vary": "Accept"},
            ping=_HEARTBEAT_SECONDS,
            ping_message_factory=lambda: ServerSentEvent(comment="heartbeat"),
            send_timeout=send_seconds,
            # On a signal the library would cancel the stream; the hub ends it first, in order.
            shutdown_grace_period=_SHUTDOWN_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            _log.info("a client that does not read was dropped from %s", scope["path"])


async def _frames(
    hub: StreamHub, tenant: TenantId, run_id: RunId, after: int, first: EventPage
) -> AsyncGenerator[bytes]:
    """The stream's bytes, a batch of events at a time."""
    yield ServerSentEvent(retry=_RETRY_MILLISECONDS).encode()
    try:
        async with aclosing(hub.follow(tenant, run_id, after, first)) as batches:
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
