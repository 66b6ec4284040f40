"""Limits of concurrency: runs take places in slots before they may start, and give them back.

A slot is a graph, a key of a graph (its ``concurrency``), or the tenant itself; a run waits first
for the one, then for the other, and keeps its places from then on to its end. The places of a run
that has ended are free without anybody's doing, so a crash leaks none. Who starts or ends a run
with places admits the next ones at once, and workers look round for what was missed.

All of a tenant's admissions happen one after the other, under a lock.
"""

from collections.abc import Collection
from typing import Any, Final, LiteralString

from dynamic_jobs.queueing.waking import WAKE
from foundation.database import AsyncConnection, Connection
from foundation.ids import TenantId

# In a statement of its own: what follows must see what the holder before has committed. A process
# that stands still, or whose host is gone, must not hold all others up: its transaction is ended.
LOCK: Final[LiteralString] = """
SELECT set_config('idle_in_transaction_session_timeout', '10s', true),
    pg_advisory_xact_lock(hashtextextended('graphwright/slots/' || tenant, 0))
FROM (SELECT DISTINCT unnest(%(tenants)s::text[]) AS tenant ORDER BY 1) AS sorted
"""

FREE: Final[LiteralString] = """
DELETE FROM graphwright.run_slots s
WHERE s.tenant = ANY(%(tenants)s) AND NOT EXISTS (
    SELECT FROM graphwright.runs r
    WHERE r.tenant = s.tenant AND r.run_id = s.run_id AND r.ended_at IS NULL
)
"""

# Hops from slot to slot that is waited for; of each, as many as there are places for.
ADMIT_TO_SLOTS: Final[LiteralString] = """
WITH RECURSIVE wanted (tenant, slot) AS (
    SELECT t.tenant, (
        SELECT min(q.slot) FROM graphwright.run_queue q
        WHERE q.state = 'blocked' AND q.tenant = t.tenant
    ) FROM (SELECT DISTINCT unnest(%(tenants)s::text[]) AS tenant) t
    UNION ALL
    SELECT w.tenant, (
        SELECT min(q.slot) FROM graphwright.run_queue q
        WHERE q.state = 'blocked' AND q.tenant = w.tenant AND q.slot > w.slot
    ) FROM wanted w WHERE w.slot IS NOT NULL
), picked AS (
    SELECT w.tenant, w.slot, q.run_id
    FROM wanted w, LATERAL (
        SELECT first.slot_limit - (
            SELECT count(*) FROM graphwright.run_slots s
            WHERE s.tenant = w.tenant AND s.slot = w.slot
        ) AS places
        FROM graphwright.run_queue first
        WHERE first.state = 'blocked' AND first.tenant = w.tenant AND first.slot = w.slot
        ORDER BY first.priority DESC, first.not_before, first.run_id LIMIT 1
    ) free, LATERAL (
        SELECT run_id FROM graphwright.run_queue
        WHERE state = 'blocked' AND tenant = w.tenant AND slot = w.slot
        ORDER BY priority DESC, not_before, run_id
        LIMIT greatest(0, free.places)
    ) q
    WHERE w.slot IS NOT NULL
), placed AS (
    INSERT INTO graphwright.run_slots (tenant, slot, run_id)
    SELECT tenant, slot, run_id FROM picked ON CONFLICT DO NOTHING
)
UPDATE graphwright.run_queue q SET state = CASE WHEN limited THEN 'limited' ELSE 'ready' END
FROM picked WHERE q.run_id = picked.run_id AND q.state = 'blocked'
"""

ADMIT_TO_TENANTS: Final[LiteralString] = """
WITH picked AS (
    SELECT w.tenant, q.run_id
    FROM (SELECT DISTINCT unnest(%(tenants)s::text[]) AS tenant) w, LATERAL (
        SELECT (
            SELECT p.max_running FROM graphwright.tenant_policies p WHERE p.tenant = w.tenant
        ) - (
            SELECT count(*) FROM graphwright.run_slots s
            WHERE s.tenant = w.tenant AND s.slot = ''
        ) AS places
    ) free, LATERAL (
        SELECT run_id FROM graphwright.run_queue
        WHERE state = 'limited' AND tenant = w.tenant
        ORDER BY priority DESC, not_before, run_id
        LIMIT CASE WHEN free.places IS NOT NULL THEN greatest(0, free.places) END  -- NULL: all
    ) q
), placed AS (
    INSERT INTO graphwright.run_slots (tenant, slot, run_id)
    SELECT tenant, '', run_id FROM picked ON CONFLICT DO NOTHING
)
UPDATE graphwright.run_queue q SET state = 'ready'
FROM picked WHERE q.run_id = picked.run_id AND q.state = 'limited'
"""

# Of the tenants that have runs waiting for places, the next ones in turn.
TENANTS: Final[LiteralString] = """
WITH RECURSIVE waiting (state, tenant, place) AS (
    SELECT state, (
        SELECT min(q.tenant) FROM graphwright.run_queue q
        WHERE q.state = s.state AND q.tenant > %(after)s
    ), 1
    FROM (VALUES ('blocked'), ('limited')) AS s (state)
    UNION ALL
    SELECT w.state, (
        SELECT min(q.tenant) FROM graphwright.run_queue q
        WHERE q.state = w.state AND q.tenant > w.tenant
    ), w.place + 1
    FROM waiting w WHERE w.tenant IS NOT NULL AND w.place < %(limit)s
)
SELECT DISTINCT tenant FROM waiting WHERE tenant IS NOT NULL ORDER BY tenant LIMIT %(limit)s
"""


_ADMIT: Final = (LOCK, FREE, ADMIT_TO_SLOTS, ADMIT_TO_TENANTS, WAKE)


def admit(connection: Connection, tenants: Collection[str]) -> None:
    """Give free places to runs of these tenants that wait for them, and wake workers for them."""
    values: dict[str, Any] = {"tenants": list(tenants)}
    with connection.transaction():
        for statement in _ADMIT:
            connection.execute(statement, values)


async def admit_async(connection: AsyncConnection, tenants: Collection[str]) -> None:
    """:func:`admit` for the event loop. Within a transaction of the caller's it is part of that."""
    values: dict[str, Any] = {"tenants": list(tenants)}
    async with connection.transaction():
        for statement in _ADMIT:
            await connection.execute(statement, values)


async def lock(connection: AsyncConnection, tenants: Collection[str]) -> None:
    """Keep others from admitting runs of these tenants until the end of the transaction."""
    await connection.execute(LOCK, {"tenants": list(tenants)})


async def tenants_waiting(connection: AsyncConnection, after: str, limit: int) -> list[TenantId]:
    """Up to ``limit`` tenants whose runs wait for places, in order, from ``after`` on."""
    cursor = await connection.execute(TENANTS, {"after": after, "limit": limit})
    return [TenantId(row["tenant"]) for row in await cursor.fetchall()]
