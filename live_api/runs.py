"""Runs: start, list, read, node outputs. Control is in ``control``, events are in ``streams``."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field, computed_field

from dynamic_jobs.creating.launching import Started
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.reading.event_log import run_id_of
from dynamic_jobs.reading.runs import NodeStatus, RunStatus
from dynamic_jobs.storage.outputs import ObjectRef
from foundation.ids import NodeId
from foundation.paging import decode_cursor, encode_cursor
from live_api.answers import json_answer
from live_api.bodies import Body
from live_api.conditional import READ_TAGGED, IfNoneMatch, etag, not_modified, tagged
from live_api.dependencies import GraphPath, NodePath, RunPath, Services, require, services
from live_api.identity import Principal
from live_api.labels import Labels, label_pairs
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router
from live_api.times import Time

PREFIX = "/api/v1/runs"

_LINK_SECONDS: Final = 60

router = api_router("/api/v1", "runs", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("runs:read"))]
Writer = Annotated[Principal, Depends(require("runs:write"))]

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Sent again with the same request, it is answered with the same run; with "
        "another request, with 409. Printable ASCII, such as a UUID.",
    ),
]

_TEXT = {"type": "string"}
ACCEPTED: Final[dict[int | str, dict[str, Any]]] = {
    status.HTTP_202_ACCEPTED: {
        "headers": {
            "Location": {"description": "The run, as a path of this API.", "schema": _TEXT},
            "Idempotency-Replayed": {
                "description": "`true` where an earlier request with the same key had started it.",
                "schema": _TEXT,
            },
        }
    }
}
"""The answer of :func:`accepted`, beside its body."""

_MAX_PRIORITY = 1_000


class RunRequest(Body):
    """What to run a graph with. Everything may be left out, the body too."""

    params: dict[str, Any] = Field(
        default_factory=dict, description="The run's input, by the graph's `params`."
    )
    priority: Annotated[int, Field(strict=True, ge=-_MAX_PRIORITY, le=_MAX_PRIORITY)] = Field(
        default=0, description="Among queued runs the highest starts first."
    )
    not_before: Time | None = Field(
        default=None, description="The run stays queued until then; RFC 3339, with an offset."
    )
    live: Annotated[bool, Field(strict=True)] = Field(
        default=True,
        description="False says that nobody watches: its events are stored, and not pushed.",
    )


class RunLinks(BaseModel):
    """Where to go on from a run, as paths of this API."""

    self: str
    events: str = Field(description="Server-sent events, or pages of JSON.")
    websocket: str
    cancel: str


class RunState(BaseModel):
    """How a run stands."""

    model_config = ConfigDict(from_attributes=True)

    run_id: str
    status: RunStatus

    @computed_field
    @property
    def links(self) -> RunLinks:
        path = f"{PREFIX}/{self.run_id}"
        return RunLinks(
            self=path, events=f"{path}/events", websocket=f"{path}/ws", cancel=f"{path}/cancel"
        )


class RunSummaryModel(RunState):
    """A run, as lists show it."""

    graph: str = Field(description="The graph's name.")
    graph_id: str
    version: int = Field(description="The graph's version that runs.")
    trigger: Mapping[str, Any] = Field(
        description="What started it: `type`, and what goes with it."
    )
    author: str
    parent_run_id: str | None = Field(description="The run that this one repeats.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: Mapping[str, Any] | None = Field(
        description="Why the run failed: `code`, `message`, `hint`, and the `node` if it was one."
    )


class NodeModel(BaseModel):
    """How one node of a run stands."""

    model_config = ConfigDict(from_attributes=True)

    status: NodeStatus
    attempt: int = Field(description="Counts from 1; 0 before the first.")
    started_at: datetime | None
    ended_at: datetime | None
    error: Mapping[str, str] | None = Field(description="`code`, `message` and `hint`.")


class RunModel(RunSummaryModel):
    """A run in full."""

    params: Mapping[str, Any] = Field(description="The run's input, with defaults filled in.")
    priority: int
    not_before: datetime | None
    live: bool
    trace_id: str = Field(
        description="The trace that it belongs to: that of the `traceparent` which it was started "
        "with, or its own."
    )
    outputs: Any = Field(description="The graph's outputs, once the run has succeeded.")
    nodes: Mapping[str, NodeModel]


class RunPageModel(BaseModel):
    """Some of the tenant's runs, newest first."""

    items: list[RunSummaryModel]
    next_cursor: NextCursor


@router.post(
    "/graphs/{graph}/runs",
    summary="Run a graph",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=RunState,
    response_description="The run is queued, durably.",
    responses=ACCEPTED | problems(404, 409, 413, 422, 429),
)
async def start_run(
    graph: GraphPath,
    parts: Parts,
    caller: Writer,
    body: RunRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queues a run of the published version of the graph of this id or name."""
    request = body or RunRequest()
    trigger = Trigger(
        request.params,
        {"type": "rest"},
        caller.subject,
        priority=request.priority,
        not_before=request.not_before,
        live=request.live,
        idempotency_key=idempotency_key,
    )
    return await accepted(parts, caller, await parts.creator.start(caller.tenant, graph, trigger))


async def accepted(parts: Services, caller: Principal, started: Started) -> Response:
    """The answer to who has triggered a run."""
    state: RunStatus = "queued"
    headers = {"Location": f"{PREFIX}/{started.run_id}"}
    if started.replayed:
        state = await parts.runs.status(caller.tenant, started.run_id)
        headers["Idempotency-Replayed"] = "true"
    answer = RunState(run_id=started.run_id, status=state)
    return json_answer(answer, headers, status.HTTP_202_ACCEPTED)


@router.get("/runs", summary="List runs", response_model=RunPageModel, responses=problems(404, 422))
async def list_runs(
    parts: Parts,
    caller: Reader,
    graph: Annotated[str | None, Query(description="Runs of this graph only; id or name.")] = None,
    status: Annotated[
        Sequence[RunStatus],
        Query(max_length=16, description="Runs of this status only. Repeat it: of any of these."),
    ] = (),
    label: Labels = (),
    error: Annotated[
        str | None,
        Query(
            pattern="^[a-z][a-z0-9_]{0,62}$",
            description="Runs that failed by an error of this code only.",
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Runs of one page.")] = 50,
    cursor: Cursor = None,
) -> Response:
    """The tenant's runs, newest first."""
    before = None if cursor is None else decode_cursor(cursor)
    graph_id = None
    if graph is not None:
        graph_id = (await parts.store.get(caller.tenant, graph)).graph_id
    page = await parts.runs.list(
        caller.tenant,
        graph_id=graph_id,
        statuses=status,
        labels=label_pairs(label),
        error=error,
        before=before,
        limit=limit,
    )
    return json_answer(
        RunPageModel(
            items=[RunSummaryModel.model_validate(run) for run in page.items],
            next_cursor=page.next_before and encode_cursor(page.next_before),
        )
    )


@router.get(
    "/runs/{run_id}",
    summary="Read a run",
    response_model=RunModel,
    responses=READ_TAGGED | problems(404),
)
async def read_run(
    run_id: RunPath, parts: Parts, caller: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """One run, with the state of each node."""
    known = run_id_of(run_id)
    if if_none_match is not None:
        tag = etag(known, *await parts.runs.progress(caller.tenant, known))
        if (answer := not_modified(if_none_match, tag)) is not None:
            return answer
    run = await parts.runs.get(caller.tenant, known)
    return tagged(RunModel.model_validate(run), etag(known, run.status, run.last_event_id))


@router.get(
    "/runs/{run_id}/nodes/{node}/output",
    summary="Read a node's output",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {"schema": {}}}},
        307: {"description": "Where a large output is, as asked for by `redirect`."},
        **problems(404, 422, 500),
    },
)
async def read_output(
    run_id: RunPath,
    node: NodePath,
    parts: Parts,
    caller: Reader,
    redirect: Annotated[
        bool,
        Query(
            description="Of a large output in S3, answer where it is: a link that anybody may GET "
            f"for {_LINK_SECONDS} seconds. Any other output is answered itself."
        ),
    ] = False,
) -> Response:
    """The JSON value that the node made, number for number."""
    output = await parts.runs.output(caller.tenant, run_id_of(run_id), NodeId(node))
    if isinstance(output, ObjectRef):
        if redirect and (
            link := await asyncio.to_thread(parts.outputs.link, output, _LINK_SECONDS)
        ):
            headers = {"Location": link, "Cache-Control": "no-store"}
            return Response(status_code=status.HTTP_307_TEMPORARY_REDIRECT, headers=headers)
        output = await asyncio.to_thread(parts.outputs.get, output)
    return Response(output, media_type="application/json")
