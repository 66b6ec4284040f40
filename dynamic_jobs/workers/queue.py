"""The run queue: thin rows, claimed with SKIP LOCKED. A claim raises the run's epoch."""

from dataclasses import dataclass
from typing import Final, Literal, LiteralString

from dagster import DagsterRun, DagsterRunStatus, deserialize_value

from dynamic_jobs.storage import Lease, LeaseLost
from foundation.database import AsyncConnection, Connection
from foundation.ids import GraphVersionId, RunId, TenantId
from graph_defs.json_values import JsonObject

# All that a worker needs to know of a run comes with the claim.
CLAIM: Final[LiteralString] = """
WITH next AS (
    DELETE FROM graphwright.run_queue WHERE run_id IN (
        SELECT run_id FROM graphwright.run_queue WHERE not_before <= now()
        ORDER BY priority DESC, not_before, run_id
        FOR UPDATE SKIP LOCKED LIMIT %(limit)s
    ) RETURNING tenant, run_id, waited
), awake AS (
    UPDATE graphwright.workers SET idle = false
    WHERE worker = %(worker)s AND idle AND EXISTS (SELECT FROM next)
), claimed AS (
    UPDATE graphwright.runs r SET
        worker = %(worker)s,
        epoch = r.epoch + 1,
        status = CASE
            WHEN r.started_at IS NOT NULL AND r.status IN ('queued', 'waiting') THEN 'running'
            ELSE r.status
        END
    FROM next WHERE r.tenant = next.tenant AND r.run_id = next.run_id
    RETURNING r.*, next.waited
)
SELECT c.tenant, c.run_id::text, c.epoch, c.graph_version_id::text, c.status, c.params, c.trigger,
    c.parent_run_id::text, c.created_at, c.started_at IS NOT NULL AS resumed, c.waited, d.run_body,
    d.pipeline_name AS job_name
FROM claimed c LEFT JOIN runs d ON d.run_id = c.run_id::text
"""

# One that its owner is cancelling is put back as that: its next worker does nothing but end it.
HAND_BACK: Final[LiteralString] = """
WITH mine AS (
    UPDATE graphwright.runs SET worker = NULL, epoch = epoch + 1,
        status = CASE WHEN status = 'cancelling' THEN status ELSE %(status)s END
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND epoch = %(epoch)s
        AND status IN ('queued', 'running', 'cancelling')
    RETURNING tenant, run_id, priority, status
)
INSERT INTO graphwright.run_queue (tenant, run_id, priority, not_before, waited)
SELECT tenant, run_id, priority,
    now() + CASE WHEN status = 'cancelling' THEN 0 ELSE %(delay)s END * interval '1 second',
    status = 'waiting'
FROM mine
RETURNING run_id
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker now holds, and what it was started with."""

    lease: Lease
    graph_version_id: GraphVersionId
    cancelling: bool
    """Its owner has cancelled it already: it is only to be ended."""
    resumed: bool
    """It had started before: nodes that have completed are not run again."""
    waited: bool
    """It had left its worker because it only waited."""
    params: JsonObject
    trigger: JsonObject
    parent_run_id: RunId | None
    created_at: str
    job_name: str
    run_body: str | None
    """Dagster's run, serialized; None where its record of it was deleted."""

    def dagster_run(self) -> DagsterRun:
        """Dagster's run. Raises what reading it raises, and :class:`LeaseLost` if it is gone."""
        if self.run_body is None:
            raise LeaseLost("the run was deleted", run_id=self.lease.run_id)
        return deserialize_value(self.run_body, DagsterRun).with_status(DagsterRunStatus.STARTED)


async def claim(connection: AsyncConnection, worker: str, limit: int) -> list[Claim]:
    """Take up to ``limit`` due runs off the queue, by priority, then by age."""
    cursor = await connection.execute(CLAIM, {"worker": worker, "limit": limit})
    return [
        Claim(
            lease=Lease(TenantId(row["tenant"]), RunId(row["run_id"]), row["epoch"]),
            graph_version_id=GraphVersionId(row["graph_version_id"]),
            cancelling=row["status"] == "cancelling",
            resumed=row["resumed"],
            waited=row["waited"],
            params=row["params"],
            trigger=row["trigger"],
            parent_run_id=row["parent_run_id"] and RunId(row["parent_run_id"]),
            created_at=row["created_at"].isoformat(),
            job_name=row["job_name"] or "",
            run_body=row["run_body"],
        )
        for row in await cursor.fetchall()
    ]


def hand_back(
    connection: Connection,
    lease: Lease,
    status: Literal["queued", "waiting"] = "queued",
    delay_seconds: float = 0.0,
) -> bool:
    """Put a held run back on the queue; whether it was still ours to put back."""
    values = {
        "tenant": lease.tenant,
        "run_id": lease.run_id,
        "epoch": lease.epoch,
        "status": status,
        "delay": delay_seconds,
    }
    return connection.execute(HAND_BACK, values).fetchone() is not None
