"""Notices as their owner sees them: what the end of a run has set off."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, LiteralString, TypeAlias

from foundation.ids import RunId, TenantId
from foundation.tenant_pool import TenantPool

NoticeStatus: TypeAlias = Literal["pending", "delivered", "rejected"]

NOTICES_OF_RUN: Final[LiteralString] = """
SELECT name, status, attempts, CASE WHEN status = 'pending' THEN next_at END AS next_at,
    started::text, reason, created_at, ended_at
FROM graphwright.notices WHERE tenant = %(tenant)s AND run_id = %(run_id)s ORDER BY name
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """One entry of `notify` in the graph of a run that has ended."""

    name: str
    status: NoticeStatus
    attempts: int
    next_at: datetime | None
    """When it is tried next, while it is pending."""
    started: RunId | None
    """The run that it has started."""
    reason: str | None
    """Why the last attempt failed."""
    created_at: datetime
    ended_at: datetime | None


class NoticeStore:
    """Notices of all tenants; a tenant sees its own."""

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def of_run(self, tenant: TenantId, run_id: RunId) -> list[Notice]:
        """Those of one run by their names, at most as many as its graph has in `notify`."""
        given = {"tenant": tenant, "run_id": run_id}
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(NOTICES_OF_RUN, given)).fetchall()
        return [Notice(**row) for row in rows]
