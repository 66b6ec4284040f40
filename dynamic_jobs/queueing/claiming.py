"""Claiming runs off the queue. A claim raises the run's epoch.

Fair between tenants: a claim goes round those with work, beginning where its worker's last one
stopped, and takes from each as many runs as its weight says; within a tenant it goes by priority,
then by age. What it costs depends on how many runs it takes, not on how many there are.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from dagster import DagsterRun, DagsterRunStatus, deserialize_value

from dynamic_jobs.queueing.strikes import MOST_STRIKES
from dynamic_jobs.storage import Lease, LeaseLost
from foundation.database import AsyncConnection
from foundation.ids import GraphVersionId, RunId, TenantId
from graph_defs.json_values import JsonObject
from graph_defs.placement import Isolation


# `current` has runs left of its turn: a busy worker claims one at a time, and weights are to count
# then too. `ahead` and `behind` hop from one tenant with work to the next in the index, at most
# `limit` times each. Where all of them together weigh less than `limit`, this is several rounds at
# once. What is picked is materialized, for a lock must not be taken twice; it is deleted as an
# array, since a join with what may have any number of rows would be planned to read all the queue.
def _pick(state: LiteralString) -> LiteralString:
    return f"""
WITH RECURSIVE current (tenant, place) AS (
    SELECT tenant, 1 FROM graphwright.run_queue
    WHERE state = '{state}' AND tenant = %(after)s AND %(left)s > 0
    ORDER BY priority DESC, not_before, run_id LIMIT 1  -- so that it takes the index
), ahead (tenant, place) AS (
    (SELECT tenant, 1 FROM graphwright.run_queue
     WHERE state = '{state}' AND tenant > %(after)s ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT n.tenant, a.place + 1 FROM ahead a, LATERAL (
        SELECT tenant FROM graphwright.run_queue
        WHERE state = '{state}' AND tenant > a.tenant ORDER BY tenant LIMIT 1
    ) n WHERE a.place < %(limit)s
), behind (tenant, place) AS (
    (SELECT tenant, 1 FROM graphwright.run_queue
     WHERE state = '{state}' AND tenant <= %(after)s ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT n.tenant, b.place + 1 FROM behind b, LATERAL (
        SELECT tenant FROM graphwright.run_queue
        WHERE state = '{state}' AND tenant > b.tenant AND tenant <= %(after)s
        ORDER BY tenant LIMIT 1
    ) n WHERE b.place < %(limit)s
), ring AS (
    SELECT tenant, row_number() OVER (ORDER BY lap, place) AS place
    FROM (
        SELECT 0 AS lap, * FROM current UNION ALL SELECT 1, * FROM ahead
        UNION ALL SELECT 2, * FROM behind WHERE tenant NOT IN (SELECT tenant FROM current)
    ) both_laps
), weighed AS MATERIALIZED (
    SELECT tenant, place, least(COALESCE((
        SELECT p.weight FROM graphwright.tenant_policies p WHERE p.tenant = ring.tenant
    ), 1), CASE WHEN tenant = %(after)s AND %(left)s > 0 THEN %(left)s END) AS weight
    FROM ring WHERE place <= %(limit)s
), laps AS (
    SELECT *,
        sum(weight) OVER (ORDER BY place) - weight AS before,
        greatest(1, %(limit)s / sum(weight) OVER ()) AS rounds
    FROM weighed
), shares AS (
    SELECT tenant, place, weight * rounds AS due,
        least(weight * rounds, %(limit)s - before * rounds)::bigint AS share
    FROM laps WHERE before * rounds < %(limit)s
), picked AS MATERIALIZED (
    SELECT q.run_id, s.place, s.due - s.share AS unserved FROM shares s, LATERAL (
        SELECT run_id FROM graphwright.run_queue
        WHERE state = '{state}' AND tenant = s.tenant
        ORDER BY priority DESC, not_before, run_id
        FOR UPDATE SKIP LOCKED LIMIT s.share
    ) q
)"""  # noqa: S608 - made of constants


_ONE: Final[LiteralString] = """
WITH picked AS MATERIALIZED (
    SELECT run_id, 1 AS place, 0 AS unserved FROM graphwright.run_queue
    WHERE run_id = %(run_id)s AND state IN ('solo', 'placed') FOR UPDATE
)"""

# All that a worker needs to know of a run comes with the claim. One that has ended is only taken
# off the queue: whoever cancelled it died before that. One that is to be placed does not run here.
_TAKE: Final[LiteralString] = """
, next AS (
    DELETE FROM graphwright.run_queue WHERE run_id = ANY(ARRAY(SELECT run_id FROM picked))
    RETURNING tenant, run_id, waited, not_before, state IN ('solo', 'placed') AS alone
), awake AS (
    UPDATE graphwright.workers SET idle = false
    WHERE worker = %(worker)s AND idle AND EXISTS (SELECT FROM next)
), claimed AS (
    UPDATE graphwright.runs r SET
        worker = %(worker)s,
        epoch = r.epoch + 1,
        being_placed = r.isolation <> 'warm' AND NOT next.alone,
        rests = next.waited,
        status = CASE
            WHEN r.started_at IS NULL OR r.status NOT IN ('queued', 'waiting') THEN r.status
            WHEN r.isolation <> 'warm' AND NOT next.alone THEN 'queued'
            ELSE 'running'
        END
    FROM next WHERE r.tenant = next.tenant AND r.run_id = next.run_id AND r.ended_at IS NULL
    RETURNING r.*, next.waited, next.not_before AS queued_at
)
SELECT c.tenant, c.run_id::text, c.epoch, c.graph_version_id::text, c.status, c.params, c.trigger,
    c.parent_run_id::text, c.created_at, c.started_at, c.waited, c.pausing, c.strikes,
    c.traceparent, c.isolation, c.lost, c.queued_at, d.run_body, d.pipeline_name AS job_name,
    picked.unserved
FROM claimed c
JOIN picked ON picked.run_id = c.run_id
LEFT JOIN runs d ON d.run_id = c.run_id::text
ORDER BY picked.place
"""

CLAIM: Final[LiteralString] = _pick("ready") + _TAKE
CLAIM_UNPLACED: Final[LiteralString] = _pick("unplaced") + _TAKE
CLAIM_SOLO: Final[LiteralString] = _ONE + _TAKE


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a claim begins: ``left`` more runs of this tenant, then those of the next ones."""

    tenant: TenantId
    left: int = 0


FIRST_TURN: Final = Turn(TenantId(""))
"""A worker has claimed nothing yet."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker now holds, and what it was started with."""

    lease: Lease
    graph_version_id: GraphVersionId
    cancelling: bool
    """Its owner has cancelled it already: it is only to be ended."""
    started_at: datetime | None
    """When it first started, if it did: nodes that have completed are not run again."""
    waited: bool
    """It had left its worker because it only waited."""
    pausing: bool
    """Its owner wants it paused: it is only to be handed back."""
    strikes: int
    """How often in a row its worker was lost before another node had completed."""
    params: JsonObject
    trigger: JsonObject
    parent_run_id: RunId | None
    created_at: str
    job_name: str
    run_body: str | None
    """Dagster's run, serialized; None where its record of it was deleted."""
    traceparent: str | None
    """Where in a trace it was asked for."""
    queued_at: datetime
    """Its age on the queue, beside others of its priority."""
    isolation: Isolation = "warm"
    lost: bool = False
    """A worker was lost that had it under way."""
    turn: Turn = FIRST_TURN
    """Where its worker's next claim begins, if this is the last run of a claim."""

    @property
    def resumed(self) -> bool:
        return self.started_at is not None

    @property
    def goes_elsewhere(self) -> bool:
        """It is to be executed in a process, container or pod of its own, if at all."""
        only_ends = self.cancelling or self.given_up or self.pausing
        return self.isolation != "warm" and not only_ends

    @property
    def given_up(self) -> bool:
        """It was lost too often: it is only to be ended."""
        return self.strikes >= MOST_STRIKES

    def dagster_run(self) -> DagsterRun:
        """Dagster's run. Raises what reading it raises, and :class:`LeaseLost` if it is gone."""
        if self.run_body is None:
            raise LeaseLost("the run was deleted", run_id=self.lease.run_id)
        return deserialize_value(self.run_body, DagsterRun).with_status(DagsterRunStatus.STARTED)


async def claim(connection: AsyncConnection, worker: str, limit: int, turn: Turn) -> list[Claim]:
    """Take up to ``limit`` runs off the queue, beginning with the tenant whose ``turn`` it is.

    In the order of the tenants: the last run's ``turn`` is that of the worker's next claim.
    """
    return await _claim(
        connection, CLAIM, worker=worker, limit=limit, after=turn.tenant, left=turn.left
    )


async def claim_unplaced(
    connection: AsyncConnection, worker: str, limit: int, turn: Turn
) -> list[Claim]:
    """As :func:`claim`, of the runs that wait for a worker with room to place them."""
    return await _claim(
        connection, CLAIM_UNPLACED, worker=worker, limit=limit, after=turn.tenant, left=turn.left
    )


async def claim_solo(connection: AsyncConnection, worker: str, run_id: RunId) -> list[Claim]:
    """Take this run, which is to have a worker of its own, off the queue, if it still is on it.

    Its process was started for it here, or elsewhere.
    """
    return await _claim(connection, CLAIM_SOLO, worker=worker, run_id=run_id)


async def _claim(
    connection: AsyncConnection, statement: LiteralString, **values: object
) -> list[Claim]:
    cursor = await connection.execute(statement, values)
    return [
        Claim(
            lease=Lease(TenantId(row["tenant"]), RunId(row["run_id"]), row["epoch"]),
            graph_version_id=GraphVersionId(row["graph_version_id"]),
            cancelling=row["status"] == "cancelling",
            started_at=row["started_at"],
            waited=row["waited"],
            pausing=row["pausing"],
            strikes=row["strikes"],
            params=row["params"],
            trigger=row["trigger"],
            parent_run_id=row["parent_run_id"] and RunId(row["parent_run_id"]),
            created_at=row["created_at"].isoformat(),
            job_name=row["job_name"] or "",
            run_body=row["run_body"],
            traceparent=row["traceparent"],
            queued_at=row["queued_at"],
            isolation=row["isolation"],
            lost=row["lost"],
            turn=Turn(TenantId(row["tenant"]), row["unserved"]),
        )
        for row in await cursor.fetchall()
    ]
