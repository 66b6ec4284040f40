"""Backfills: a timer's graph run for each due time of a past range; progress, cancel."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

from fastapi import Depends, Path, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from live_api.bodies import Body
from live_api.dependencies import Services, require, services
from live_api.identity import Principal
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router
from live_api.runs import IdempotencyKey
from live_api.triggers import Instant, TriggerPath
from schedules.backfills import MOST_DUE_TIMES, MOST_RUNNING, Backfill

PREFIX = "/api/v1/backfills"

router = api_router("/api/v1", "backfills", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("triggers:read"))]
Writer = Annotated[Principal, Depends(require("triggers:write"))]
BackfillPath: TypeAlias = Annotated[str, Path(description="The backfill's id.")]


class BackfillRequest(Body):
    """A past range of a timer's due times."""

    start: Instant = Field(
        alias="from", description="Due times from this on; RFC 3339, with an offset."
    )
    end: Instant = Field(
        alias="to",
        description="Due times before this. The range must be past, and may have at most "
        f"{MOST_DUE_TIMES:,} of them.",
    )
    max_running: Annotated[int, Field(strict=True)] = Field(
        default=16,
        description="At most so many of its runs are unfinished at a time; at most "
        f"{MOST_RUNNING:,}.",
    )


class BackfillModel(BaseModel):
    """A backfill, as lists show it."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    backfill_id: str
    trigger_id: str
    trigger: str = Field(validation_alias="name", description="The timer's name.")
    graph: str = Field(description="The graph's name.")
    graph_id: str
    from_at: datetime
    to_at: datetime = Field(description="Not included.")
    max_running: int
    status: Literal["running", "cancelling", "cancelled", "failed", "succeeded"] = Field(
        description="`failed`: a due time can have no run, or a run has not succeeded."
    )
    total: int = Field(description="Due times in the range.")
    made: int = Field(description="Due times that have got a run.")
    refused: int = Field(description="Due times that can have none; the last for the `reason`.")
    reason: str | None
    author: str
    created_at: datetime
    ended_at: datetime | None


class BackfillDetail(BackfillModel):
    """A backfill, with how its runs stand."""

    runs: Mapping[str, int] = Field(
        description="How many of its runs have which status; those that retention has removed, and "
        "re-runs, are not among them."
    )


class BackfillPage(BaseModel):
    """Some of the tenant's backfills, newest first."""

    items: list[BackfillModel]
    next_cursor: NextCursor


@router.post(
    "/triggers/{trigger_id}/backfills",
    summary="Backfill a timer",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The backfill is stored, durably, and goes on by itself.",
    responses={
        202: {
            "headers": {
                "Location": {
                    "description": "The backfill, as a path of this API.",
                    "schema": {"type": "string"},
                },
                "Idempotency-Replayed": {
                    "description": "`true` where an earlier request with the same key had asked "
                    "for it.",
                    "schema": {"type": "string"},
                },
            }
        },
        **problems(404, 409, 422),
    },
)
async def create_backfill(
    trigger_id: TriggerPath,
    body: BackfillRequest,
    response: Response,
    parts: Parts,
    caller: Writer,
    idempotency_key: IdempotencyKey = None,
) -> BackfillDetail:
    """Runs the timer's graph once for each of its due times in the range, in their order.

    By the timer as it is now, also where it is disabled; later changes of it do not matter.
    """
    stored = await parts.triggers.get(caller.tenant, trigger_id)
    backfill, replayed = await parts.backfills.create(
        stored,
        body.start,
        body.end,
        body.max_running,
        caller.subject,
        datetime.now(UTC),
        idempotency_key=idempotency_key,
    )
    response.headers["Location"] = f"{PREFIX}/{backfill.backfill_id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return _detail(backfill)


@router.get("/backfills", summary="List backfills", responses=problems(422))
async def list_backfills(
    parts: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200, description="Backfills of one page.")] = 50,
    cursor: Cursor = None,
) -> BackfillPage:
    """The tenant's backfills, newest first."""
    page = await parts.backfills.list(caller.tenant, limit, cursor)
    items = [BackfillModel.model_validate(each) for each in page.items]
    return BackfillPage(items=items, next_cursor=page.next_cursor)


@router.get("/backfills/{backfill_id}", summary="Read a backfill", responses=problems(404))
async def read_backfill(backfill_id: BackfillPath, parts: Parts, caller: Reader) -> BackfillDetail:
    """One backfill: how far it has come, and how its runs stand."""
    return _detail(await parts.backfills.get(caller.tenant, backfill_id))


@router.post(
    "/backfills/{backfill_id}/cancel",
    summary="Cancel a backfill",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="It starts no further run; those under way will be cancelled.",
    responses=problems(404, 409),
)
async def cancel_backfill(
    backfill_id: BackfillPath, parts: Parts, caller: Writer
) -> BackfillDetail:
    """Ends a backfill that has not ended, and cancels its runs that have not."""
    return _detail(await parts.backfills.cancel(caller.tenant, backfill_id))


def _detail(backfill: Backfill) -> BackfillDetail:
    return BackfillDetail.model_validate(backfill)
