"""The run queue: thin rows, claimed with SKIP LOCKED. A claim raises the run's epoch."""

from dataclasses import dataclass
from typing import Final, LiteralString

from dynamic_jobs.storage import Lease
from foundation.database import Connection
from foundation.ids import GraphVersionId, RunId, TenantId

CLAIM: Final[LiteralString] = """
WITH next AS (
    DELETE FROM graphwright.run_queue WHERE run_id IN (
        SELECT run_id FROM graphwright.run_queue WHERE not_before <= now()
        ORDER BY priority DESC, not_before, run_id
        FOR UPDATE SKIP LOCKED LIMIT %(limit)s
    ) RETURNING tenant, run_id
)
UPDATE graphwright.runs r SET worker = %(worker)s, epoch = r.epoch + 1
FROM next WHERE r.tenant = next.tenant AND r.run_id = next.run_id
RETURNING r.tenant, r.run_id::text, r.epoch, r.graph_version_id::text, r.started_at IS NOT NULL
    AS resumed
"""

# A run that its owner is cancelling is not put back: the canceller ends it.
HAND_BACK: Final[LiteralString] = """
WITH mine AS (
    UPDATE graphwright.runs SET worker = NULL, epoch = epoch + 1, status = 'queued'
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND epoch = %(epoch)s
        AND status IN ('queued', 'running')
    RETURNING tenant, run_id, priority
)
INSERT INTO graphwright.run_queue (tenant, run_id, priority, not_before)
SELECT tenant, run_id, priority, now() + %(delay)s * interval '1 second' FROM mine
RETURNING run_id
"""

NEXT_DUE: Final[LiteralString] = """
SELECT extract(epoch FROM min(not_before) - now())::float AS seconds FROM graphwright.run_queue
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker now holds."""

    lease: Lease
    graph_version_id: GraphVersionId
    resumed: bool
    """It had started before: nodes that have completed are not run again."""


def claim(connection: Connection, worker: str, limit: int) -> list[Claim]:
    """Take up to ``limit`` due runs off the queue, by priority, then by age."""
    rows = connection.execute(CLAIM, {"worker": worker, "limit": limit})
    return [
        Claim(
            Lease(TenantId(row["tenant"]), RunId(row["run_id"]), row["epoch"]),
            GraphVersionId(row["graph_version_id"]),
            row["resumed"],
        )
        for row in rows
    ]


def hand_back(connection: Connection, lease: Lease, delay_seconds: float = 0.0) -> bool:
    """Put a held run back on the queue; whether it was still ours to put back."""
    values = {
        "tenant": lease.tenant,
        "run_id": lease.run_id,
        "epoch": lease.epoch,
        "delay": delay_seconds,
    }
    return connection.execute(HAND_BACK, values).fetchone() is not None
