"""Notices: what the end of a run has set off."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field

from dynamic_jobs.reading.event_log import run_id_of
from live_api.dependencies import RunPath, Services, require, services
from live_api.identity import Principal
from live_api.problems import problems
from live_api.routing import api_router
from sensors.notice_list import NoticeStatus

router = api_router("/api/v1", "notices", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("triggers:read"))]


class NoticeModel(BaseModel):
    """What became of one entry of `notify` in the graph's document."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="The entry's name.")
    status: NoticeStatus = Field(
        description="`pending`: it waits, maybe for another attempt. `delivered`. `rejected`: it "
        "is given up, for the `reason`."
    )
    attempts: int = Field(description="How often it was tried.")
    next_at: datetime | None = Field(description="When it is tried next, while it is pending.")
    started: str | None = Field(description="The run that it has started.")
    reason: str | None = Field(description="Why the last attempt failed.")
    created_at: datetime
    ended_at: datetime | None


class NoticeList(BaseModel):
    """All notices of a run, by their names."""

    items: list[NoticeModel]
    next_cursor: None = Field(default=None, description="Always null: there are no further pages.")


@router.get("/runs/{run_id}/notices", summary="List the notices of a run", responses=problems(404))
async def list_notices(run_id: RunPath, parts: Parts, caller: Reader) -> NoticeList:
    """What the run's end has set off, by the graph's `notify`. None before the run has ended."""
    known = run_id_of(run_id)
    await parts.runs.status(caller.tenant, known)
    found = await parts.notices.of_run(caller.tenant, known)
    return NoticeList(items=[NoticeModel.model_validate(each) for each in found])
