"""Runs: start, list, read, cancel, node outputs. Their events are in ``streams``."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response, status
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field, field_validator

from dynamic_jobs.control import cancel
from dynamic_jobs.creating.launching import Trigger
from dynamic_jobs.reading.event_log import run_id_of
from dynamic_jobs.reading.runs import NodeStatus, RunStatus
from foundation.ids import NodeId, RunId
from foundation.paging import decode_cursor, encode_cursor
from live_api.auth import Principal
from live_api.dependencies import Services, require, services
from live_api.problems import problems

PREFIX = "/api/v1/runs"

router = APIRouter(prefix="/api/v1", tags=["runs"], responses=problems(401, 403, 503))

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("runs:read"))]
Writer = Annotated[Principal, Depends(require("runs:write"))]

_FIRST_YEAR, _LAST_YEAR = 1970, 9998
_MAX_PRIORITY = 1_000


class RunRequest(BaseModel):
    """What to run a graph with. Everything may be left out, the body too."""

    model_config = ConfigDict(extra="forbid")

    params: dict[str, Any] = Field(
        default_factory=dict, description="The run's input, by the graph's `params`."
    )
    priority: Annotated[int, Field(strict=True, ge=-_MAX_PRIORITY, le=_MAX_PRIORITY)] = Field(
        default=0, description="Among queued runs the highest starts first."
    )
    not_before: AwareDatetime | None = Field(
        default=None, description="The run stays queued until then; RFC 3339, with an offset."
    )
    live: Annotated[bool, Field(strict=True)] = Field(
        default=True,
        description="False says that nobody watches: its events are stored, and not pushed.",
    )

    @field_validator("not_before")
    @classmethod
    def _can_be_stored(cls, value: datetime | None) -> datetime | None:
        if value is not None and not _FIRST_YEAR <= value.year <= _LAST_YEAR:
            raise ValueError(f"the year must be from {_FIRST_YEAR} to {_LAST_YEAR}")
        return value


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
    outputs: Any = Field(description="The graph's outputs, once the run has succeeded.")
    error: Mapping[str, Any] | None = Field(
        description="Why the run failed: `code`, `message`, `hint`, and the `node` if it was one."
    )
    nodes: Mapping[str, NodeModel]


class RunPageModel(BaseModel):
    """Some of the tenant's runs, newest first."""

    items: list[RunSummaryModel]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page.")


@router.post(
    "/graphs/{graph}/runs",
    summary="Run a graph",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=RunState,
    response_description="The run is queued, durably.",
    responses=problems(404, 413, 422),
)
async def start_run(
    graph: str, parts: Parts, caller: Writer, body: RunRequest | None = None
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
    )
    run_id = await parts.creator.start(caller.tenant, graph, trigger)
    # Made here, since FastAPI takes longer to check an answer than we do to give it.
    return Response(
        RunState(run_id=run_id, status="queued").model_dump_json(),
        status.HTTP_202_ACCEPTED,
        {"Location": f"{PREFIX}/{run_id}"},
        media_type="application/json",
    )


@router.get("/runs", summary="List runs", responses=problems(404, 422))
async def list_runs(
    parts: Parts,
    caller: Reader,
    graph: Annotated[str | None, Query(description="Runs of this graph only; id or name.")] = None,
    status: Annotated[RunStatus | None, Query(description="Runs of this status only.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Runs of one page.")] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> RunPageModel:
    """The tenant's runs, newest first."""
    before = None if cursor is None else decode_cursor(cursor)
    graph_id = None
    if graph is not None:
        graph_id = (await parts.store.get(caller.tenant, graph)).graph_id
    page = await parts.runs.list(
        caller.tenant, graph_id=graph_id, status=status, before=before, limit=limit
    )
    return RunPageModel(
        items=[RunSummaryModel.model_validate(run) for run in page.items],
        next_cursor=page.next_before and encode_cursor(page.next_before),
    )


@router.get("/runs/{run_id}", summary="Read a run", responses=problems(404))
async def read_run(run_id: str, parts: Parts, caller: Reader) -> RunModel:
    """One run, with the state of each node."""
    return RunModel.model_validate(await parts.runs.get(caller.tenant, run_id_of(run_id)))


@router.post(
    "/runs/{run_id}/cancel",
    summary="Cancel a run",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The run is cancelled, or will be in a moment.",
    responses=problems(404, 409),
)
async def cancel_run(run_id: str, parts: Parts, caller: Writer) -> RunState:
    """Ends a run that has not ended. Nodes that run are stopped; those that wait never start."""
    known = run_id_of(run_id)
    state = await asyncio.to_thread(_cancel, parts, caller, known)
    return RunState.model_validate({"run_id": known, "status": state})


def _cancel(parts: Services, caller: Principal, run_id: RunId) -> str:
    with parts.blocking_pool.connection() as connection:
        return cancel(connection, parts.writer, caller.tenant, run_id)


@router.get(
    "/runs/{run_id}/nodes/{node}/output",
    summary="Read a node's output",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {}}}}, **problems(404)},
)
async def read_output(run_id: str, node: str, parts: Parts, caller: Reader) -> Response:
    """The JSON value that the node made, number for number."""
    text = await parts.runs.output(caller.tenant, run_id_of(run_id), NodeId(node))
    return Response(text, media_type="application/json")
