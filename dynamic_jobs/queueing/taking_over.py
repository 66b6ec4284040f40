"""Queueing again what a worker held and does not execute: it is dead, or never learnt of it."""

from collections.abc import Collection, Mapping
from typing import Any, Final, LiteralString

from dynamic_jobs.queueing.strikes import MOST_STRIKES, SOLO_STRIKES
from dynamic_jobs.queueing.waking import WAKE
from foundation.database import AsyncConnection
from foundation.ids import RunId


# A run that has completed another node has no strikes; the one that was lost before any is one
# strike further. One that its worker was only placing is as it was.
def _requeued(lost: LiteralString) -> LiteralString:
    return f"""lost AS (
    UPDATE graphwright.runs r SET
        worker = NULL,
        epoch = r.epoch + 1,
        strikes = CASE
            WHEN h.done > h.nodes_done THEN 0
            WHEN r.being_placed THEN r.strikes
            ELSE r.strikes + 1
        END,
        nodes_done = h.done,
        lost = {lost},
        status = CASE WHEN r.status = 'running' THEN 'queued' ELSE r.status END
    FROM held h WHERE r.tenant = h.tenant AND r.run_id = h.run_id AND r.worker = h.worker
    RETURNING r.tenant, r.run_id, r.graph_id, r.priority, r.strikes, r.status, r.isolation,
        r.being_placed AND r.rests AS waited
), queued AS (
    INSERT INTO graphwright.run_queue (
        tenant, run_id, graph_id, priority, state, waited, admitted
    )
    SELECT tenant, run_id, graph_id, priority,
        CASE
            WHEN status <> 'cancelling' AND isolation = 'warm'
                AND strikes >= %(solo)s AND strikes < %(most)s THEN 'solo'
            ELSE 'ready'
        END,
        waited, true
    FROM lost
    ON CONFLICT (run_id) DO NOTHING
)
SELECT run_id::text, strikes FROM lost
"""  # noqa: S608 - made of constants


_HELD: Final[LiteralString] = """
    SELECT r.tenant, r.run_id, r.worker, r.nodes_done, (
        SELECT count(*) FROM graphwright.node_outputs o
        WHERE o.tenant = r.tenant AND o.run_id = r.run_id
    ) AS done
    FROM graphwright.runs r
"""

# Rows are locked in the order in which writers lock them. A heartbeat that comes at the last moment
# wins, for its row is looked at again once it is locked.
TAKE_OVER: Final[LiteralString] = f"""
WITH dead AS MATERIALIZED (
    SELECT worker FROM graphwright.workers
    WHERE worker = ANY(%(workers)s::uuid[]) AND seen_at < now() - %(lease)s * interval '1 second'
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM graphwright.workers w USING dead WHERE w.worker = dead.worker
), held AS MATERIALIZED ({_HELD}
    WHERE r.worker IN (SELECT worker FROM dead UNION SELECT unnest(%(unseen)s::uuid[]))
        AND r.ended_at IS NULL
    ORDER BY r.run_id
    FOR NO KEY UPDATE
), {_requeued("r.lost OR r.status = 'running'")}
"""  # noqa: S608 - made of constants

# Claims that were committed though their worker never had the answer: it lives, and so it keeps
# what it knows nothing of. Nothing of them is under way.
STRAYS: Final[LiteralString] = """
SELECT r.run_id::text, r.epoch FROM graphwright.runs r
WHERE r.worker = %(worker)s AND r.ended_at IS NULL AND r.run_id <> ALL(%(held)s::uuid[])
"""

GIVE_UP: Final[LiteralString] = f"""
WITH held AS MATERIALIZED ({_HELD}
    WHERE r.worker = %(worker)s AND r.ended_at IS NULL AND (r.run_id, r.epoch) IN (
        SELECT * FROM unnest(%(runs)s::uuid[], %(epochs)s::integer[])
    )
    ORDER BY r.run_id
    FOR NO KEY UPDATE
), {_requeued("r.lost")}
"""  # noqa: S608 - made of constants


async def take_over(
    connection: AsyncConnection,
    lease_seconds: float,
    stale: Collection[str],
    unseen: Collection[str],
) -> Mapping[RunId, int]:
    """Queue again what dead workers held. The runs, and how many strikes each has.

    ``stale`` workers are looked at once more; ``unseen`` ones are dead by the caller's judgement.
    """
    values = {
        "lease": lease_seconds,
        "workers": list(stale),
        "unseen": list(unseen),
        "solo": SOLO_STRIKES,
        "most": MOST_STRIKES,
    }
    return await _requeue(connection, TAKE_OVER, values)


async def strays(
    connection: AsyncConnection, worker: str, held: Collection[RunId]
) -> set[tuple[RunId, int]]:
    """Runs, each with its epoch, that are the worker's though it does not know of them."""
    values = {"worker": worker, "held": list(held)}
    rows = await (await connection.execute(STRAYS, values)).fetchall()
    return {(RunId(row["run_id"]), row["epoch"]) for row in rows}


async def give_up(
    connection: AsyncConnection, worker: str, runs: Collection[tuple[RunId, int]]
) -> Mapping[RunId, int]:
    """Queue again what the worker itself holds, under these epochs; else as :func:`take_over`."""
    values = {
        "worker": worker,
        "runs": [run_id for run_id, _ in runs],
        "epochs": [epoch for _, epoch in runs],
        "solo": SOLO_STRIKES,
        "most": MOST_STRIKES,
    }
    return await _requeue(connection, GIVE_UP, values)


async def _requeue(
    connection: AsyncConnection, statement: LiteralString, values: Mapping[str, Any]
) -> Mapping[RunId, int]:
    rows = await (await connection.execute(statement, values)).fetchall()
    if rows:
        await connection.execute(WAKE)
    return {RunId(row["run_id"]): row["strikes"] for row in rows}
