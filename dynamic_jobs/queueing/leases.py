"""Leases: a worker's heartbeat keeps all that it holds.

One row and one update a worker, however many runs it executes. The lease of a run is its worker's
heartbeat, and the run's epoch is the fence: whoever takes a run over raises it, and from then on
nothing that the former holder writes is accepted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from foundation.database import AsyncConnection
from foundation.ids import RunId, TenantId

# Made anew where it is missing: another worker took this one for dead, or PostgreSQL was restarted.
HEARTBEAT: Final[LiteralString] = """
WITH before AS (SELECT seen_at FROM graphwright.workers WHERE worker = %(worker)s)
INSERT INTO graphwright.workers AS w (worker, host, pid, pool)
VALUES (%(worker)s, %(host)s, %(pid)s, %(pool)s)
ON CONFLICT (worker) DO UPDATE SET seen_at = now()
RETURNING draining, xmax = 0 AS registered, now() AS at, (SELECT seen_at FROM before) AS seen_at
"""

UNREGISTER: Final[LiteralString] = "DELETE FROM graphwright.workers WHERE worker = %s"

# Those whose heartbeat is too old, and those who hold something though nobody has seen them.
SUSPECTS: Final[LiteralString] = """
WITH RECURSIVE holders (worker) AS (
    (SELECT worker FROM graphwright.runs
     WHERE worker IS NOT NULL AND ended_at IS NULL ORDER BY worker LIMIT 1)
    UNION ALL
    SELECT (SELECT r.worker FROM graphwright.runs r
            WHERE r.worker > h.worker AND r.ended_at IS NULL ORDER BY r.worker LIMIT 1)
    FROM holders h WHERE h.worker IS NOT NULL
)
SELECT h.worker::text, true AS unseen FROM holders h
WHERE h.worker IS NOT NULL
    AND NOT EXISTS (SELECT FROM graphwright.workers w WHERE w.worker = h.worker)
UNION ALL
SELECT w.worker::text, false FROM graphwright.workers w
WHERE w.seen_at < now() - %(lease)s * interval '1 second'
"""

STILL_HELD: Final[LiteralString] = """
SELECT r.run_id::text
FROM unnest(%s::text[], %s::uuid[], %s::integer[]) AS held (tenant, run_id, epoch)
JOIN graphwright.runs r
    ON r.tenant = held.tenant AND r.run_id = held.run_id AND r.epoch = held.epoch
"""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat told: whether the worker was asked to drain, and was missed meanwhile."""

    draining: bool
    registered: bool
    """The worker's row was missing, and was made."""
    at: datetime
    """When it was, by PostgreSQL's clock."""
    seen_at: datetime | None
    """When the worker had been seen before, by the same clock."""


async def beat(connection: AsyncConnection, worker: str, host: str, pid: int, pool: int) -> Beat:
    """Say that the worker lives."""
    values = {"worker": worker, "host": host, "pid": pid, "pool": pool}
    row = await (await connection.execute(HEARTBEAT, values)).fetchone()
    assert row is not None
    return Beat(row["draining"], row["registered"], row["at"], row["seen_at"])


async def suspects(connection: AsyncConnection, lease_seconds: float) -> dict[str, bool]:
    """Workers that seem to be dead; the value says whether they have no row at all.

    That alone proves nothing: PostgreSQL empties the table of workers when it has crashed.
    """
    cursor = await connection.execute(SUSPECTS, {"lease": lease_seconds})
    return {row["worker"]: row["unseen"] for row in await cursor.fetchall()}


async def lost(
    connection: AsyncConnection, held: Mapping[RunId, tuple[TenantId, int]]
) -> set[RunId]:
    """Which of these runs, each with its tenant and epoch, are held by somebody else by now."""
    values = (
        [tenant for tenant, _ in held.values()],
        list(held),
        [epoch for _, epoch in held.values()],
    )
    rows = await (await connection.execute(STILL_HELD, values)).fetchall()
    return set(held) - {RunId(row["run_id"]) for row in rows}
