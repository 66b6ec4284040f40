"""The events of one graph's runs, and of all runs of a tenant, as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response

from dynamic_jobs.reading.events import EventType
from dynamic_jobs.reading.many_position import POSITION, Position, position_of
from dynamic_jobs.reading.many_tail import Chunk
from foundation.errors import GraphwrightError
from foundation.ids import GraphId
from live_api.dependencies import GraphPath, Services, require, services
from live_api.identity import Principal
from live_api.labels import Labels, label_pairs
from live_api.problems import problems
from live_api.routing import api_router
from live_api.streams.clients import Client
from live_api.streams.event_stream import EventStream, closing, heartbeat, many_frames, opening
from live_api.streams.runs import STREAM
from live_api.streams.selection import RunStatus, Selection, types_of

router = api_router("/api/v1")

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("runs:read"))]
Graphs = Annotated[
    list[str], Query(max_length=100, description="Only of runs of these graphs: ids or names.")
]
Statuses = Annotated[
    list[RunStatus],
    Query(max_length=20, description="Only events that bring a run to one of these statuses."),
]
Types = Annotated[list[EventType], Query(max_length=50, description="Only events of these types.")]
LastEventId = Annotated[
    str, Header(description="Of a stream that broke off; stronger than `after`.")
]
After = Annotated[
    str | None,
    Query(pattern=POSITION, description="The last id that the stream gave; without it, from now."),
]
_RESPONSES = {
    200: {"description": "The events, as they happen.", **STREAM},
    **problems(400, 401, 403, 404, 422, 503),
}


@router.get(
    "/events",
    tags=["runs"],
    summary="Follow all runs",
    response_class=Response,
    responses=_RESPONSES,
)
async def follow_runs(
    request: Request,
    parts: Parts,
    caller: Reader,
    graph: Graphs = [],  # noqa: B006 - FastAPI copies it
    status: Statuses = [],  # noqa: B006
    type: Types = [],  # noqa: A002, B006 - the name of the parameter
    label: Labels = (),
    last_event_id: LastEventId = "",
    after: After = None,
) -> Response:
    """A stream of the events of all runs, from now on or after the last id of an earlier stream.

    The SSE `id` is a place in this stream. It is good for any server, and for other filters too;
    the `id` within an event is that of the run's own stream.
    """
    known = [await _graph_id(parts, caller, name) for name in graph]
    selection = Selection(
        graphs=frozenset(known) if known else None,
        types=types_of(type, status),
        labels=frozenset(f"{key}:{value}" for key, value in label_pairs(label)),
    )
    return await _stream(request, parts, caller, selection, last_event_id or after)


@router.get(
    "/graphs/{graph}/events",
    tags=["graphs"],
    summary="Follow the runs of a graph",
    response_class=Response,
    responses=_RESPONSES,
)
async def follow_graph(
    request: Request,
    graph: GraphPath,
    parts: Parts,
    caller: Reader,
    status: Statuses = [],  # noqa: B006 - FastAPI copies it
    type: Types = [],  # noqa: A002, B006 - the name of the parameter
    last_event_id: LastEventId = "",
    after: After = None,
) -> Response:
    """A stream of the events of all runs of a graph; the same as `/events?graph=`."""
    selection = Selection(
        graphs=frozenset({await _graph_id(parts, caller, graph)}), types=types_of(type, status)
    )
    return await _stream(request, parts, caller, selection, last_event_id or after)


async def _graph_id(parts: Services, caller: Principal, graph: str) -> GraphId:
    return (await parts.store.get(caller.tenant, graph)).graph_id


async def _stream(
    request: Request, parts: Services, caller: Principal, selection: Selection, after: str | None
) -> Response:
    streams = parts.streams
    inbox = streams.hub.many.inbox()
    items = streams.hub.many.follow(caller.tenant, position_of(after) if after else None, inbox)
    start = await anext(items)  # while there is still a status to answer with
    assert isinstance(start, Position)
    return EventStream(
        _frames(items, start, selection),
        streams.clients,
        Client(request.url.path, caller.expires_at, inbox.cut, inbox.beat),
    )


async def _frames(
    items: AsyncGenerator[Position | Chunk], start: Position, selection: Selection
) -> AsyncGenerator[bytes]:
    position = start
    async with aclosing(items):
        yield opening(str(start))
        try:
            async for chunk in items:
                assert not isinstance(chunk, Position)
                if not chunk:
                    yield heartbeat(str(position))
                    continue
                position = chunk[-1].position
                if selected := chunk.made(selection):
                    yield selected.made(many_frames)
        except GraphwrightError as error:
            yield closing(error)
