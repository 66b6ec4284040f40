"""The audit log, read."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import AwareDatetime, BaseModel, Field

from foundation.text import storable
from live_api.audit_log import Entry
from live_api.dependencies import Services, require, services
from live_api.identity import Principal
from live_api.paging import Cursor, NextCursor
from live_api.routing import api_router

router = api_router("/api/v1/audit", "audit", 401, 403, 422, 503)


class AuditModel(BaseModel):
    """Who did what, or was refused it."""

    audit_id: str
    at: datetime
    subject: str = Field(description="Of the token; `key:` and its prefix for an API key.")
    role: str | None
    token_id: str = Field(description="The token's `jti`; of a login, the API key's `token_id`.")
    action: str = Field(description="The operation, as `operationId` here.")
    target: dict[str, Any] = Field(description="The parameters of its path.")
    status: int = Field(description="Of the answer: below 400 it was done.")
    address: str | None = Field(description="Where the request came from.")
    request_id: str
    user_agent: str | None


class AuditPage(BaseModel):
    """Some entries, the newest first."""

    items: list[AuditModel]
    next_cursor: NextCursor


@router.get("", summary="List what was changed, and by whom")
async def list_audit(
    parts: Annotated[Services, Depends(services)],
    caller: Annotated[Principal, Depends(require("audit:read"))],
    actor: Annotated[str | None, Query(description="Of this subject only.")] = None,
    action: Annotated[str | None, Query(description="Of this operation only.")] = None,
    after: Annotated[
        AwareDatetime | None, Query(description="From this time on, RFC 3339.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Entries of one page.")] = 50,
    cursor: Cursor = None,
) -> AuditPage:
    """Every request that was to change something, by the tenant's callers, and every login.

    Entries of started runs may come a second late.
    """
    page = await parts.audit.list(
        caller.tenant,
        limit,
        cursor,
        subject=None if actor is None else storable(actor, len(actor)),
        action=None if action is None else storable(action, len(action)),
        since=after,
    )
    return AuditPage(items=[_model(entry) for entry in page.items], next_cursor=page.next_cursor)


def _model(entry: Entry) -> AuditModel:
    return AuditModel.model_validate(entry, from_attributes=True)
