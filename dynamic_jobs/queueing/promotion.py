"""Runs whose time has come: from ``delayed`` to what they wait for next."""

from dataclasses import dataclass
from typing import Final, LiteralString

from dynamic_jobs.queueing.admission import admit_async
from dynamic_jobs.queueing.strikes import MOST_STRIKES, SOLO_STRIKES
from dynamic_jobs.queueing.waking import WAKE
from foundation.database import AsyncConnection
from foundation.ids import RunId, TenantId

_AT_ONCE: Final = 1_000
SOLO_START_SECONDS: Final = 60
"""Time that a process of its own has to start and claim its run, before another is started."""

PROMOTE: Final[LiteralString] = """
WITH due AS MATERIALIZED (
    SELECT run_id FROM graphwright.run_queue
    WHERE state = 'delayed' AND not_before <= now()
    ORDER BY not_before LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE graphwright.run_queue q SET state = CASE
        WHEN q.admitted AND EXISTS (
            SELECT FROM graphwright.runs r
            WHERE r.tenant = q.tenant AND r.run_id = q.run_id
                AND r.strikes BETWEEN %(solo)s AND %(most)s - 1 AND r.isolation = 'warm'
        ) THEN 'solo'
        WHEN q.admitted THEN 'ready'
        WHEN EXISTS (
            SELECT FROM graphwright.graphs g
            WHERE g.tenant = q.tenant AND g.graph_id = q.graph_id AND g.paused
        ) THEN 'held'
        WHEN q.slot IS NOT NULL THEN 'blocked'
        WHEN q.limited THEN 'limited'
        ELSE 'ready'
    END
    FROM due WHERE q.run_id = due.run_id
    RETURNING q.state, q.tenant
)
SELECT
    count(*) AS promoted,
    array_agg(DISTINCT tenant) FILTER (WHERE state IN ('blocked', 'limited')) AS limited,
    (SELECT extract(epoch FROM min(not_before) - now())::float FROM graphwright.run_queue
     WHERE state = 'delayed' AND not_before > now()) AS next_due
FROM moved
"""

# From tenant to tenant that has such runs, beginning where the last look ended, and some of them at
# most; of a tenant the first that is due. Whoever asks has a while to start a worker for it.
NEXT_SOLO: Final[LiteralString] = """
WITH RECURSIVE ahead (tenant, place) AS (
    (SELECT tenant, 1 FROM graphwright.run_queue
     WHERE state = 'solo' AND tenant > %(after)s ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT n.tenant, a.place + 1 FROM ahead a, LATERAL (
        SELECT tenant FROM graphwright.run_queue
        WHERE state = 'solo' AND tenant > a.tenant ORDER BY tenant LIMIT 1
    ) n WHERE a.place < 100
), behind (tenant, place) AS (
    (SELECT tenant, 1 FROM graphwright.run_queue
     WHERE state = 'solo' AND tenant <= %(after)s ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT n.tenant, b.place + 1 FROM behind b, LATERAL (
        SELECT tenant FROM graphwright.run_queue
        WHERE state = 'solo' AND tenant > b.tenant AND tenant <= %(after)s
        ORDER BY tenant LIMIT 1
    ) n WHERE b.place < 100
), ring AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY lap, place) AS turn
    FROM (SELECT 1 AS lap, * FROM ahead UNION ALL SELECT 2, * FROM behind) both_laps
    ORDER BY turn LIMIT 100
), picked AS MATERIALIZED (
    SELECT first.*
    FROM (SELECT * FROM ring ORDER BY turn) ring, LATERAL (
        SELECT q.run_id, q.tenant, r.strikes >= %(struck)s AS struck
        FROM graphwright.run_queue q
        JOIN graphwright.runs r ON r.tenant = q.tenant AND r.run_id = q.run_id
        WHERE q.state = 'solo' AND q.tenant = ring.tenant AND q.not_before <= now()
            AND (r.strikes < %(struck)s OR %(take_struck)s)
        ORDER BY q.priority DESC, q.not_before, q.run_id
        LIMIT 1 FOR UPDATE OF q SKIP LOCKED
    ) first
    LIMIT 1
), taken AS (
    UPDATE graphwright.run_queue q SET not_before = now() + %(seconds)s * interval '1 second'
    FROM picked WHERE q.run_id = picked.run_id
    RETURNING q.run_id::text, q.tenant, picked.struck
)
SELECT taken.run_id, COALESCE(taken.tenant, last.tenant) AS tenant, taken.struck
FROM (SELECT tenant FROM ring ORDER BY turn DESC LIMIT 1) last LEFT JOIN taken ON true
"""


@dataclass(frozen=True, slots=True)
class Promoted:
    """How many runs moved on, and in how many seconds the next one is due, if one is."""

    runs: int
    next_due: float | None


async def promote(connection: AsyncConnection) -> Promoted:
    """Move on the runs whose time has come; those with limits take their places if there are."""
    values = {"limit": _AT_ONCE, "solo": SOLO_STRIKES, "most": MOST_STRIKES}
    row = await (await connection.execute(PROMOTE, values)).fetchone()
    assert row is not None
    if row["limited"]:
        await admit_async(connection, row["limited"])
    if row["promoted"]:
        await connection.execute(WAKE)
    return Promoted(row["promoted"], 0.0 if row["promoted"] == _AT_ONCE else row["next_due"])


@dataclass(frozen=True, slots=True)
class Solo:
    """A run that is to have a process of its own; ``struck``: workers were lost with it."""

    run_id: RunId
    struck: bool


async def next_solo(
    connection: AsyncConnection, after: TenantId, *, take_struck: bool
) -> tuple[Solo | None, TenantId]:
    """A run that is to be executed by a process of its own, which the caller is to start.

    That of the next tenant ``after`` one; it, or the last that was looked at, is where the next
    look begins. Without ``take_struck``, none that had workers lost.
    """
    values = {
        "after": after,
        "take_struck": take_struck,
        "struck": SOLO_STRIKES,
        "seconds": SOLO_START_SECONDS,
    }
    row = await (await connection.execute(NEXT_SOLO, values)).fetchone()
    if row is None:
        return None, after
    found = row["run_id"] and Solo(RunId(row["run_id"]), row["struck"])
    return found, TenantId(row["tenant"])
