"""The caller's own tenant: what it may take, and what it takes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, LiteralString

from fastapi import Depends, Path
from pydantic import BaseModel, Field

from foundation.errors import NotFound
from foundation.ids import TenantId, first_id_of
from foundation.tenant_pool import TenantPool
from live_api.dependencies import Services, require, services
from live_api.identity import Principal
from live_api.problems import problems
from live_api.routing import api_router

router = api_router("/api/v1/tenants", "tenants", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("tenant:read"))]

USAGE: Final[LiteralString] = """
SELECT t.created_at, p.weight, p.max_running, p.max_queued, p.max_runs_per_day, p.max_graphs,
       p.retention_days,
       (SELECT count(*) FROM graphwright.runs
        WHERE tenant = t.tenant AND status = 'queued') AS queued,
       (SELECT count(*) FROM graphwright.runs
        WHERE tenant = t.tenant AND status IN ('running', 'waiting', 'paused', 'cancelling'))
       AS running,
       (SELECT count(*) FROM graphwright.runs
        WHERE tenant = t.tenant AND sort_id >= %(today)s) AS runs_today,
       (SELECT count(*) FROM graphwright.graphs
        WHERE tenant = t.tenant AND deleted_at IS NULL) AS graphs
FROM graphwright.tenants t JOIN graphwright.tenant_policies p ON p.tenant = t.tenant
WHERE t.tenant = %(tenant)s
"""


class PolicyModel(BaseModel):
    """What the tenant may take; null is no bound."""

    weight: int = Field(
        description="Runs started in a round in which every tenant with work has its turn."
    )
    max_running: int | None = Field(description="Runs under way at once.")
    max_queued: int | None = Field(description="Runs on the queue.")
    max_runs_per_day: int | None = Field(description="Runs accepted a day, in UTC.")
    max_graphs: int | None = Field(description="Graphs stored.")
    retention_days: int | None = Field(
        description="Days that a run is kept after its end; null: as the installation says."
    )


class UsageModel(BaseModel):
    """What the tenant takes just now."""

    queued: int = Field(description="Runs on the queue.")
    running: int = Field(description="Runs that have begun and not ended.")
    runs_today: int = Field(description="Runs made since midnight, in UTC.")
    graphs: int


class TenantModel(BaseModel):
    """A tenant."""

    tenant: str
    created_at: datetime
    policy: PolicyModel
    usage: UsageModel


class TenantPage(BaseModel):
    """The tenants that the caller may see."""

    items: list[TenantModel]
    next_cursor: None = Field(default=None, description="Always null: there are no further pages.")


@router.get("", summary="List tenants")
async def list_tenants(parts: Parts, caller: Reader) -> TenantPage:
    """The caller's own tenant: a token is of one tenant, and sees no other."""
    own = await _read(parts.tenant_pool, caller.tenant)
    return TenantPage(items=[] if own is None else [own])


@router.get("/{tenant}", summary="Read a tenant", responses=problems(404))
async def read_tenant(
    tenant: Annotated[str, Path(description="The tenant's name.")], parts: Parts, caller: Reader
) -> TenantModel:
    """What holds for the tenant, and what it takes just now."""
    found = await _read(parts.tenant_pool, caller.tenant) if tenant == caller.tenant else None
    if found is None:
        raise NotFound(f"there is no tenant {tenant}", hint="`GET /api/v1/tenants` has yours.")
    return found


async def _read(pool: TenantPool, tenant: TenantId) -> TenantModel | None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    given: dict[str, Any] = {"tenant": tenant, "today": first_id_of(midnight)}
    async with pool.connection(tenant) as connection:
        row = await (await connection.execute(USAGE, given)).fetchone()
    if row is None:
        return None
    return TenantModel(
        tenant=tenant,
        created_at=row["created_at"],
        policy=PolicyModel.model_validate(row),
        usage=UsageModel.model_validate(row),
    )
