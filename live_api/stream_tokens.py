"""Stream tokens, for browsers: an EventSource cannot send a header."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, status
from pydantic import BaseModel, Field

from dynamic_jobs.reading.event_log import run_id_of
from live_api.dependencies import RunPath, Services, require, services
from live_api.identity import Principal, issue_stream_token
from live_api.problems import problems
from live_api.routing import api_router

router = api_router("/api/v1/runs", "runs", 401, 403, 503)


class StreamTokenModel(BaseModel):
    """A token for the events of one run, and where to present it."""

    token: str
    expires_at: datetime
    events: str = Field(description="Path of the event stream, with the token.")
    websocket: str = Field(description="Path of the WebSocket, with the token.")


@router.post(
    "/{run_id}/stream-token",
    summary="Make a token for a run's events",
    status_code=status.HTTP_201_CREATED,
    response_description="The token.",
    responses=problems(404),
)
async def create_stream_token(
    run_id: RunPath,
    parts: Annotated[Services, Depends(services)],
    caller: Annotated[Principal, Depends(require("runs:read"))],
) -> StreamTokenModel:
    """Makes a token that is good for ten minutes, for following this run and for nothing else.

    It may be part of an address, which servers and proxies write to their logs.
    """
    run = run_id_of(run_id)
    await parts.runs.status(caller.tenant, run)
    token, expires_at = issue_stream_token(parts.identity.key, caller, run)
    path = f"{router.prefix}/{run}"
    return StreamTokenModel(
        token=token,
        expires_at=datetime.fromtimestamp(expires_at, UTC),
        events=f"{path}/events?token={token}",
        websocket=f"{path}/ws?token={token}",
    )
