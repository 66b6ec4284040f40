"""A run's events as server-sent events and as pages of JSON, and who watches it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel, Field

from dynamic_jobs.reading.event_log import EVENT_ID, EventPage, event_id_of, run_id_of
from dynamic_jobs.reading.events import RunEvent
from dynamic_jobs.reading.stream_inbox import Inbox
from foundation.errors import GraphwrightError
from foundation.ids import RunId
from live_api.dependencies import RunPath, Services, require, require_stream, services
from live_api.identity import Principal
from live_api.problems import problems
from live_api.routing import api_router
from live_api.streams.clients import Client
from live_api.streams.event_stream import (
    HEARTBEAT,
    SSE,
    EventStream,
    closing,
    opening,
    run_frames,
)
from live_api.streams.services import Streams

router = api_router("/api/v1/runs", "runs")

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("runs:read"))]
Follower = Annotated[Principal, Depends(require_stream("runs:read"))]

STREAM: Final = {"content": {SSE: {"schema": {"type": "string"}}}}
"""What OpenAPI says of an event stream."""


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


class WatcherModel(BaseModel):
    """Somebody who follows a run's events."""

    subject: str = Field(description="Of the token.")
    transport: Literal["sse", "websocket"]
    since: str = Field(description="RFC 3339, in UTC.")


class WatchersModel(BaseModel):
    """Who watches a run."""

    items: list[WatcherModel] = Field(description="Those who have watched for longest first.")
    complete: bool = Field(
        description="False while Redis is away: then those at other API processes are missing."
    )


@router.get(
    "/{run_id}/events",
    summary="Follow or page through a run's events",
    response_class=Response,
    responses={
        200: {"model": EventPageModel, **STREAM},
        204: {"description": "To a stream's client: the run has ended, and you have seen it all."},
        **problems(400, 401, 403, 404, 422, 503),
    },
)
async def read_run_events(
    request: Request,
    run_id: RunPath,
    parts: Parts,
    caller: Follower,
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
    hub = parts.streams.hub
    if SSE not in accept.lower():
        return _json_page(await hub.page(caller.tenant, known, int(after), limit))
    position = event_id_of(last_event_id or after)
    page = await hub.first_page(caller.tenant, known, position)
    if page.ended and not page.events:
        return Response(status_code=204)
    inbox = hub.inbox()
    return EventStream(
        _frames(parts.streams, caller, known, position, page, inbox),
        parts.streams.clients,
        Client(request.url.path, caller.expires_at, inbox.cut, inbox.beat),
    )


@router.get(
    "/{run_id}/watchers",
    summary="List who watches a run",
    response_model=WatchersModel,
    responses=problems(401, 403, 404, 503),
)
async def list_watchers(run_id: RunPath, parts: Parts, caller: Reader) -> dict[str, Any]:
    """Lists who follows the run's events just now, at whichever server. One who has just come or
    gone at another server may take a moment to show."""
    known = run_id_of(run_id)
    await parts.runs.status(caller.tenant, known)
    items, complete = await parts.streams.presence.watchers(known)
    return {"items": items, "complete": complete}


async def _frames(
    streams: Streams,
    caller: Principal,
    run_id: RunId,
    after: int,
    first: EventPage,
    inbox: Inbox[RunEvent],
) -> AsyncGenerator[bytes]:
    """The stream's bytes, a batch of events at a time."""
    with streams.presence.watching(run_id, caller.subject, "sse"):
        yield opening()
        try:
            following = streams.hub.follow(caller.tenant, run_id, after, first, inbox)
            async with aclosing(following) as batches:
                async for batch in batches:
                    yield batch.made(run_frames) if batch else HEARTBEAT
        except GraphwrightError as error:
            yield closing(error)


def _json_page(page: EventPage) -> Response:
    content = {
        "items": page.events,
        "next_cursor": str(page.last_id) if page.full else None,
        "ended": page.ended,
    }
    return Response(
        orjson.dumps(content), media_type="application/json", headers={"Vary": "Accept"}
    )
