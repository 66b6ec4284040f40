"""Deliveries as their owner sees them: listed, read and delivered again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, LiteralString, TypeAlias

from psycopg.rows import DictRow

from foundation.errors import Conflict, NotFound
from foundation.ids import DeliveryId, GraphId, RunId, TenantId, TriggerId, new_id
from foundation.paging import Page, decode_cursor, encode_cursor
from foundation.tenant_pool import TenantPool
from graph_defs.finding import UUID

Verdict: TypeAlias = Literal["pending", "started", "filtered", "rejected", "refused"]

_COLUMNS: Final[LiteralString] = """
SELECT d.delivery_id::text, d.trigger_id::text, t.name AS trigger, d.graph_id::text,
    g.name AS graph, d.received_at, d.verdict, d.reason, d.run_id::text,
    CASE WHEN d.decided_at IS NOT NULL  -- by two clocks, so the one may be behind
        THEN greatest(extract(epoch FROM d.decided_at - d.received_at)::float8, 0) * 1000
    END AS latency_ms,
    d.sender_id, d.redelivery_of::text, octet_length(d.body) AS size
"""

_NAMES: Final[LiteralString] = """
LEFT JOIN graphwright.graphs g ON g.tenant = d.tenant AND g.graph_id = d.graph_id
LEFT JOIN graphwright.triggers t ON t.tenant = d.tenant AND t.trigger_id = d.trigger_id
"""

# As the list of runs: each combination of filters has a plan of its own, and the page is cut before
# names are looked up.
LIST: Final[LiteralString] = f"""{_COLUMNS}
FROM (
    SELECT * FROM graphwright.deliveries d WHERE d.tenant = %(tenant)s
"""  # noqa: S608 - made of constants
LIST_OF_TRIGGER: Final[LiteralString] = "AND d.trigger_id = %(trigger_id)s\n"
LIST_OF_GRAPH: Final[LiteralString] = "AND d.graph_id = %(graph_id)s\n"
LIST_BY_VERDICT: Final[LiteralString] = "AND d.verdict = %(verdict)s\n"
LIST_BEFORE: Final[LiteralString] = "AND d.delivery_id < %(before)s::uuid\n"
LIST_NEWEST: Final[LiteralString] = (
    "ORDER BY d.delivery_id DESC LIMIT %(limit)s\n) d" + _NAMES + "ORDER BY d.delivery_id DESC"
)

GET: Final[LiteralString] = (
    _COLUMNS
    + ", d.headers, d.query, d.body FROM graphwright.deliveries d"
    + _NAMES
    + "WHERE d.tenant = %(tenant)s AND d.delivery_id = %(delivery_id)s"
)

# One statement, so one transaction: what is in the inbox is on the queue.
REDELIVER: Final[LiteralString] = """
WITH original AS (
    SELECT d.*, EXISTS (
        SELECT FROM graphwright.triggers t
        WHERE t.tenant = d.tenant AND t.trigger_id = d.trigger_id
    ) AS has_trigger
    FROM graphwright.deliveries d
    WHERE d.tenant = %(tenant)s AND d.delivery_id = %(delivery_id)s
), stored AS (
    INSERT INTO graphwright.deliveries (
        tenant, delivery_id, trigger_id, graph_id, received_at, sender_id, headers, query, body,
        redelivery_of
    )
    SELECT tenant, %(new_id)s, trigger_id, graph_id, now(), sender_id, headers, query, body,
        delivery_id
    FROM original WHERE verdict <> 'refused' AND has_trigger
    RETURNING tenant, delivery_id
), queued AS (
    INSERT INTO graphwright.delivery_queue (delivery_id, tenant)
    SELECT delivery_id, tenant FROM stored
    RETURNING delivery_id
), told AS (
    SELECT pg_notify('graphwright_triggers', 'deliveries') FROM queued
)
SELECT verdict, has_trigger, (SELECT count(*) FROM told) AS told FROM original
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySummary:
    """A call of a webhook, as lists show it."""

    delivery_id: DeliveryId
    trigger_id: TriggerId
    trigger: str | None
    """The trigger's name; None where it is gone."""
    graph_id: GraphId
    graph: str | None
    received_at: datetime
    verdict: Verdict
    reason: str | None
    run_id: RunId | None
    latency_ms: float | None
    """From its arrival to its verdict."""
    sender_id: str | None
    """The sender's own id of it."""
    redelivery_of: DeliveryId | None
    size: int | None
    """Bytes of its body; None where that was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery(DeliverySummary):
    """A call of a webhook, with all that was kept of it."""

    headers: Mapping[str, str]
    """Names in lower case; without those that prove who sent it."""
    query: Mapping[str, str | list[str]]
    body: bytes | None


class DeliveryStore:
    """The inboxes of all tenants; every method asks for one tenant's and sees no other's."""

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def list(
        self,
        tenant: TenantId,
        limit: int,
        cursor: str | None = None,
        *,
        trigger_id: TriggerId | None = None,
        graph_id: GraphId | None = None,
        verdict: Verdict | None = None,
    ) -> Page[DeliverySummary]:
        """At most ``limit`` deliveries, newest first: of a trigger, of a graph, of one verdict.

        Raises Invalid for a bad cursor.
        """
        given: dict[str, Any] = {
            "tenant": tenant,
            "limit": limit + 1,
            "trigger_id": trigger_id,
            "graph_id": graph_id,
            "verdict": verdict,
        }
        query = LIST
        if trigger_id is not None:
            query += LIST_OF_TRIGGER
        if graph_id is not None:
            query += LIST_OF_GRAPH
        if verdict is not None:
            query += LIST_BY_VERDICT
        if cursor is not None:
            given["before"] = decode_cursor(cursor)
            query += LIST_BEFORE
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(query + LIST_NEWEST, given)).fetchall()
        items = [DeliverySummary(**row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(items, encode_cursor(items[-1].delivery_id) if more else None)

    async def get(self, tenant: TenantId, delivery_id: str) -> StoredDelivery:
        """One delivery. Raises NotFound."""
        row = await self._row(GET, tenant, delivery_id)
        return StoredDelivery(**row)

    async def redeliver(self, tenant: TenantId, delivery_id: str) -> StoredDelivery:
        """Deliver it again, to its trigger as that is published now: a new delivery, which waits.

        Raises NotFound; and Conflict for one that was refused, or whose trigger is gone.
        """
        given = {"new_id": new_id()}
        original = await self._row(REDELIVER, tenant, delivery_id, **given)
        if original["verdict"] == "refused":
            raise Conflict(
                "a delivery that was refused cannot be delivered again",
                hint="It never proved who sent it, and its body was not kept. Let the sender send "
                "it again.",
                delivery_id=delivery_id,
            )
        if not original["has_trigger"]:
            raise Conflict(
                "the graph has no such trigger any more",
                hint="Publish the graph with the trigger, and let the sender call its new address.",
                delivery_id=delivery_id,
            )
        return await self.get(tenant, given["new_id"])

    async def _row(
        self, statement: LiteralString, tenant: TenantId, delivery_id: str, **more: str
    ) -> DictRow:
        if not UUID.fullmatch(delivery_id):
            raise _no_delivery(delivery_id)
        given = {"tenant": tenant, "delivery_id": delivery_id, **more}
        async with self._pool.connection(tenant) as connection:
            row = await (await connection.execute(statement, given)).fetchone()
        if row is None:
            raise _no_delivery(delivery_id)
        return row


def _no_delivery(delivery_id: str) -> NotFound:
    return NotFound(
        f"there is no delivery {delivery_id}",
        hint="`GET /api/v1/deliveries` lists the inbox.",
        delivery_id=delivery_id,
    )
