"""Putting a run that a worker holds back on the queue, or aside."""

from collections.abc import Collection
from typing import Final, Literal, LiteralString

from dynamic_jobs.queueing.claiming import Claim
from dynamic_jobs.queueing.strikes import MOST_STRIKES, SOLO_STRIKES
from dynamic_jobs.queueing.waking import WAKE
from dynamic_jobs.storage import Lease
from foundation.database import AsyncConnection, Connection
from foundation.ids import RunId

# One that its owner is cancelling is put back as that: its next worker does nothing but end it.
# One that is paused is on no queue, unless it was resumed before it got here.
HAND_BACK: Final[LiteralString] = f"""
WITH mine AS (
    UPDATE graphwright.runs SET worker = NULL, epoch = epoch + 1,
        status = CASE
            WHEN status = 'cancelling' THEN status
            WHEN pausing THEN 'paused'
            WHEN %(status)s = 'paused' THEN 'queued'
            ELSE %(status)s
        END,
        rests = %(waited)s, pausing = false
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND epoch = %(epoch)s
        AND status IN ('queued', 'running', 'cancelling')
    RETURNING tenant, run_id, graph_id, priority, status, strikes, isolation
), queued AS (
    INSERT INTO graphwright.run_queue (
        tenant, run_id, graph_id, priority, state, not_before, waited, admitted
    )
    SELECT tenant, run_id, graph_id, priority,
        CASE
            WHEN status = 'cancelling' THEN 'ready'
            WHEN %(delay)s > 0 THEN 'delayed'
            WHEN strikes BETWEEN %(solo)s AND %(most)s - 1 AND isolation = 'warm' THEN 'solo'
            ELSE 'ready'
        END,
        now() + CASE WHEN status = 'cancelling' THEN 0 ELSE %(delay)s END * interval '1 second',
        %(waited)s, true
    FROM mine WHERE status <> 'paused'
    RETURNING state
), woken AS (
    {WAKE} AND EXISTS (SELECT FROM queued WHERE state = 'ready')
)
SELECT status, (SELECT count(*) FROM woken) AS woken FROM mine
"""  # noqa: S608 - made of constants

# Runs of which nothing was begun. They keep their places among the others. Not those whose owners
# want something else of them meanwhile.
SET_ASIDE: Final[LiteralString] = """
WITH mine AS (
    UPDATE graphwright.runs r SET worker = NULL, epoch = r.epoch + 1
    FROM unnest(
        %(tenants)s::text[], %(runs)s::uuid[], %(epochs)s::integer[], %(queued)s::timestamptz[],
        %(waited)s::boolean[]
    ) AS held (tenant, run_id, epoch, queued_at, waited)
    WHERE r.tenant = held.tenant AND r.run_id = held.run_id AND r.epoch = held.epoch
        AND r.status = 'queued' AND NOT r.pausing
    RETURNING r.tenant, r.run_id, r.graph_id, r.priority, held.queued_at, held.waited
), queued AS (
    INSERT INTO graphwright.run_queue (
        tenant, run_id, graph_id, priority, state, not_before, waited, admitted
    )
    SELECT tenant, run_id, graph_id, priority, 'unplaced', queued_at, waited, true FROM mine
)
SELECT run_id::text FROM mine
"""


async def set_aside(connection: AsyncConnection, claims: Collection[Claim]) -> set[RunId]:
    """Leave these runs, which were only claimed, to whoever has room to place them.

    Those that were set aside; the others are still held.
    """
    leases = [claimed.lease for claimed in claims]
    values = {
        "tenants": [lease.tenant for lease in leases],
        "runs": [lease.run_id for lease in leases],
        "epochs": [lease.epoch for lease in leases],
        "queued": [claimed.queued_at for claimed in claims],
        "waited": [claimed.waited for claimed in claims],
    }
    rows = await (await connection.execute(SET_ASIDE, values)).fetchall()
    return {RunId(row["run_id"]) for row in rows}


def hand_back(
    connection: Connection,
    lease: Lease,
    status: Literal["queued", "waiting", "paused"] = "queued",
    delay_seconds: float = 0.0,
    *,
    waited: bool = False,
) -> str | None:
    """Put a held run back on the queue. How it then stands; None where it was not ours any more.

    ``waited``: it had left its last worker because it only waited, and nothing was begun since.

    One whose owner wants it paused goes on no queue: only its owner brings it back. ``paused`` says
    that it was left for that.
    """
    values = {
        "tenant": lease.tenant,
        "run_id": lease.run_id,
        "epoch": lease.epoch,
        "status": status,
        "delay": delay_seconds,
        "waited": waited or status != "queued",
        "solo": SOLO_STRIKES,
        "most": MOST_STRIKES,
    }
    row = connection.execute(HAND_BACK, values).fetchone()
    return None if row is None else row["status"]
