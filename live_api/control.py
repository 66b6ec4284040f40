"""What is done to runs: cancel, pause, resume, run again."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Response, status
from pydantic import Field

from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.pausing import pause, resume
from dynamic_jobs.controlling.rerunning import Again, rerun
from dynamic_jobs.reading.event_log import run_id_of
from dynamic_jobs.storage import EventWriter
from foundation.database import Connection
from foundation.ids import RunId, TenantId
from live_api.bodies import Body
from live_api.dependencies import RunPath, Services, require, services
from live_api.identity import Principal
from live_api.problems import problems
from live_api.routing import api_router
from live_api.runs import ACCEPTED, PREFIX, IdempotencyKey, RunState, accepted

router = api_router(PREFIX, "runs", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Writer = Annotated[Principal, Depends(require("runs:write"))]

_Change = Callable[[Connection, EventWriter, TenantId, RunId], str]


class RerunRequest(Body):
    """What to run again."""

    begin: str = Field(
        default="start",
        alias="from",
        max_length=63,
        description="`start`: all nodes. `failed`: those that have not succeeded, and what is "
        "downstream of them. A node: that one, what is downstream of it, and what has not "
        "succeeded. All others keep their outputs.",
    )
    params: dict[str, Any] | None = Field(
        default=None,
        description="The new run's input, instead of the whole of that of the run; without it the "
        "same. Nodes that keep their outputs do not see it.",
    )


@router.post(
    "/{run_id}/cancel",
    summary="Cancel a run",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The run is cancelled, or will be in a moment.",
    responses=problems(404, 409),
)
async def cancel_run(run_id: RunPath, parts: Parts, caller: Writer) -> RunState:
    """Ends a run that has not ended. Nodes that run are stopped; those that wait never start."""
    return await _change(parts, caller, run_id, cancel)


@router.post(
    "/{run_id}/pause",
    summary="Pause a run",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The run is paused, or will be when the nodes under way have ended.",
    responses=problems(404, 409),
)
async def pause_run(run_id: RunPath, parts: Parts, caller: Writer) -> RunState:
    """Starts no further node of the run until it is resumed. Nodes that run may finish."""
    return await _change(parts, caller, run_id, pause)


@router.post(
    "/{run_id}/resume",
    summary="Resume a run",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The run is queued, or goes on already.",
    responses=problems(404, 409),
)
async def resume_run(run_id: RunPath, parts: Parts, caller: Writer) -> RunState:
    """Lets a paused run go on where it was; one that is not paused stays as it is."""
    return await _change(parts, caller, run_id, resume)


@router.post(
    "/{run_id}/rerun",
    summary="Run a run again",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=RunState,
    response_description="The new run is queued, durably.",
    responses=ACCEPTED | problems(404, 409, 413, 422, 429),
)
async def rerun_run(
    run_id: RunPath,
    parts: Parts,
    caller: Writer,
    body: RerunRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Starts a new run of the same version of the graph, by the same trigger.

    Only of a run that has ended. The new run names it as `parent_run_id`.
    """
    asked = body or RerunRequest()
    again = Again(asked.begin, caller.subject, asked.params, idempotency_key)
    started = await rerun(parts.tenant_pool, parts.creator, caller.tenant, run_id_of(run_id), again)
    return await accepted(parts, caller, started)


async def _change(parts: Services, caller: Principal, run_id: str, change: _Change) -> RunState:
    known = run_id_of(run_id)

    def work() -> str:
        with parts.blocking_pool.connection(caller.tenant) as connection:
            return change(connection, parts.writer, caller.tenant, known)

    state = await asyncio.to_thread(work)
    return RunState.model_validate({"run_id": known, "status": state})
