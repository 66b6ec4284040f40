"""Triggers as their owner sees them: listed, read, enabled and disabled."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, LiteralString

from foundation.errors import NotFound
from foundation.ids import GraphId, TenantId, TriggerId
from foundation.tenant_pool import TenantPool
from graph_defs.finding import UUID
from graph_defs.json_values import JsonObject
from graph_defs.trigger_sync import remove_timer, set_timer
from graph_defs.triggers import TimerTrigger

_TRIGGER: Final[LiteralString] = """
SELECT t.tenant, t.trigger_id::text, t.graph_id::text, g.name AS graph, t.name, t.type, t.config,
       t.address, t.enabled, timers.due_at AS next_due_at, t.last_fault, t.last_fault_at,
       t.created_at, t.updated_at
  FROM graphwright.triggers t
  JOIN graphwright.graphs g ON g.tenant = t.tenant AND g.graph_id = t.graph_id
  LEFT JOIN graphwright.timers ON timers.trigger_id = t.trigger_id
 WHERE t.tenant = %(tenant)s AND g.tenant = %(tenant)s
"""

TRIGGERS_OF_GRAPH: Final[LiteralString] = _TRIGGER + "AND t.graph_id = %(graph_id)s ORDER BY t.name"
TRIGGER_BY_ID: Final[LiteralString] = _TRIGGER + "AND t.trigger_id = %(trigger_id)s"

SET_ENABLED: Final[LiteralString] = """
UPDATE graphwright.triggers SET enabled = %(enabled)s
WHERE tenant = %(tenant)s AND trigger_id = %(trigger_id)s AND enabled <> %(enabled)s
RETURNING type, config
"""


@dataclass(frozen=True, slots=True)
class StoredTrigger:
    """A trigger of a graph's published version."""

    tenant: TenantId
    trigger_id: TriggerId
    graph_id: GraphId
    graph: str
    name: str
    type: Literal["webhook", "timer"]
    config: JsonObject
    """As the document has it."""
    address: str | None
    """Of a webhook: the last part of its URL."""
    enabled: bool
    next_due_at: datetime | None
    """Of a timer that is enabled, unless it never comes again."""
    last_fault: str | None
    """Why it last started no run though it should have; None since it was last changed."""
    last_fault_at: datetime | None
    created_at: datetime
    updated_at: datetime


class TriggerStore:
    """Triggers of all tenants; every method asks for one tenant's and sees no other's."""

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def of_graph(self, tenant: TenantId, graph_id: GraphId) -> list[StoredTrigger]:
        """The graph's triggers, by name; at most a hundred."""
        given = {"tenant": tenant, "graph_id": graph_id}
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(TRIGGERS_OF_GRAPH, given)).fetchall()
        return [StoredTrigger(**row) for row in rows]

    async def get(self, tenant: TenantId, trigger_id: str) -> StoredTrigger:
        """One trigger. Raises NotFound."""
        if not UUID.fullmatch(trigger_id):
            raise _no_trigger(trigger_id)
        given = {"tenant": tenant, "trigger_id": trigger_id}
        async with self._pool.connection(tenant) as connection:
            row = await (await connection.execute(TRIGGER_BY_ID, given)).fetchone()
        if row is None:
            raise _no_trigger(trigger_id)
        return StoredTrigger(**row)

    async def set_enabled(
        self, tenant: TenantId, trigger_id: str, *, enabled: bool
    ) -> StoredTrigger:
        """Switch the trigger on or off. A timer goes on at its next due time. Raises NotFound."""
        known = (await self.get(tenant, trigger_id)).trigger_id
        given: dict[str, Any] = {"tenant": tenant, "trigger_id": known, "enabled": enabled}
        async with self._pool.connection(tenant) as connection, connection.transaction():
            changed = await (await connection.execute(SET_ENABLED, given)).fetchone()
            if changed is not None and changed["type"] == "timer":
                if enabled:
                    timer = TimerTrigger.model_validate(changed["config"])
                    await set_timer(connection, tenant, known, timer)
                else:
                    await remove_timer(connection, known)
        return await self.get(tenant, known)


def _no_trigger(trigger_id: str) -> NotFound:
    return NotFound(
        f"there is no trigger {trigger_id}",
        hint="`GET /api/v1/graphs/{graph}/triggers` lists those of a graph.",
        trigger_id=trigger_id,
    )
