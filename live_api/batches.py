"""Starting many runs by one request: all of them, or none."""

from typing import Annotated, Final

from fastapi import Depends, Response, status
from pydantic import BaseModel, Field

from dynamic_jobs.creating.trigger import Started, Trigger
from dynamic_jobs.creating.whole_batches import Asked
from foundation.errors import Fault, Invalid
from live_api.bodies import Body
from live_api.dependencies import Services, require, services
from live_api.identity import Principal
from live_api.problems import problems
from live_api.routing import api_router
from live_api.runs import IdempotencyKey, RunRequest, RunState

router = api_router("/api/v1/runs", "runs", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Writer = Annotated[Principal, Depends(require("runs:write"))]

_MAX_RUNS: Final = 1_000


class BatchedRun(RunRequest):
    """A run of a batch."""

    graph: str = Field(max_length=63, description="The graph's id or name.")
    idempotency_key: (
        Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] | None
    ) = Field(default=None, description="As the header of `POST /graphs/{graph}/runs`.")


class BatchRequest(Body):
    """Which runs to start."""

    runs: list[BatchedRun] = Field(min_length=1, max_length=_MAX_RUNS)


class BatchedRunState(RunState):
    """How a run of a batch stands."""

    replayed: bool = Field(
        description="Whether an earlier request with the same key had started it."
    )


class BatchState(BaseModel):
    """The runs of a batch, in the order in which they were asked for."""

    items: list[BatchedRunState]


@router.post(
    "/batch",
    summary="Start many runs",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=BatchState,
    response_description="All of the runs are queued, durably.",
    responses=problems(409, 413, 422, 429),
)
async def start_batch(
    body: BatchRequest, parts: Parts, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Response:
    """Queues up to 1,000 runs of any graphs, all of them or none.

    The pointers of faults begin with `/runs/` and the run's place, from 0. With the header
    `Idempotency-Key: k` the run at place `i` has the key `k/i`, unless it has its own.
    """
    asked = [
        Asked(each.graph, _trigger(each, place, idempotency_key, caller.subject))
        for place, each in enumerate(body.runs)
    ]
    _check_keys(asked)
    started = await parts.creator.start_all(caller.tenant, asked)
    state = await _state(parts, caller, started)
    # Made here, since FastAPI takes longer to check an answer than we do to give it.
    return Response(
        state.model_dump_json(), status.HTTP_202_ACCEPTED, media_type="application/json"
    )


def _trigger(run: BatchedRun, place: int, key: str | None, author: str) -> Trigger:
    own = run.idempotency_key
    return Trigger(
        run.params,
        {"type": "rest"},
        author,
        priority=run.priority,
        not_before=run.not_before,
        live=run.live,
        idempotency_key=f"{key}/{place}" if own is None and key is not None else own,
    )


def _check_keys(asked: list[Asked]) -> None:
    seen: set[str] = set()
    faults: list[Fault] = []
    for place, each in enumerate(asked):
        key = each.trigger.idempotency_key
        if key is not None and key in seen:
            message = "Another run of the batch has this key."
            faults.append(Fault(f"/runs/{place}/idempotency_key", "repeated_key", message))
        elif key is not None:
            seen.add(key)
    if faults:
        raise Invalid("The request has faults.", faults)


async def _state(parts: Services, caller: Principal, started: list[Started]) -> BatchState:
    replayed = [each.run_id for each in started if each.replayed]
    statuses = await parts.runs.statuses(caller.tenant, replayed)
    return BatchState(
        items=[
            BatchedRunState(
                run_id=each.run_id,
                status=statuses.get(each.run_id, "queued"),
                replayed=each.replayed,
            )
            for each in started
        ]
    )
