"""Launches from Dagster that were cut off half-way are completed by a worker.

Dagster makes a run and asks our coordinator to queue it in two transactions, and the coordinator
needs two more; a process that dies in between leaves a run that nobody would ever start.
"""

import asyncio
import logging
from typing import Final, LiteralString

import psycopg
from dagster import DagsterInstance

from dynamic_jobs.coordinator import GraphwrightRunCoordinator
from foundation.database import async_connect
from foundation.errors import GraphwrightError

_log = logging.getLogger(__name__)

_GRACE_SECONDS: Final = 30.0
"""A launch takes a fraction of a second, but Dagster's daemon makes runs some time ahead."""
_AT_ONCE: Final = 50

# One worker at a time: the lock lasts as long as the transaction.
LOCK: Final[LiteralString] = (
    "SELECT pg_try_advisory_xact_lock(hashtextextended('graphwright/adopting', 0)) AS mine"
)

CUT_OFF: Final[LiteralString] = """
(SELECT d.run_id FROM runs d
 WHERE d.status = 'NOT_STARTED'
    AND d.create_timestamp < (now() - %(grace)s * interval '1 second') AT TIME ZONE 'UTC'
    AND EXISTS (
        SELECT FROM run_tags t WHERE t.run_id = d.run_id AND t.key = 'graphwright/tenant'
    )
 LIMIT %(limit)s)
UNION
(SELECT q.run_id::text FROM graphwright.run_queue q
 WHERE q.state = 'launching' AND q.not_before < now() - %(grace)s * interval '1 second'
 LIMIT %(limit)s)
"""


async def adopt_launches(
    database_url: str, instance: DagsterInstance, grace_seconds: float = _GRACE_SECONDS
) -> None:
    """Complete launches that began longer ago than the grace, until cancelled."""
    while True:
        try:
            await adopt_once(database_url, instance, grace_seconds)
        except psycopg.Error as error:
            _log.warning("launches that were cut off cannot be looked for: %s", error)
        await asyncio.sleep(grace_seconds)


async def adopt_once(database_url: str, instance: DagsterInstance, grace_seconds: float) -> int:
    """Complete what there is to complete, unless another worker does so just now; how many."""
    values = {"grace": grace_seconds, "limit": _AT_ONCE}
    async with await async_connect(database_url) as connection, connection.transaction():
        row = await (await connection.execute(LOCK)).fetchone()
        if row is None or not row["mine"]:
            return 0
        found = await (await connection.execute(CUT_OFF, values)).fetchall()
        for cut_off in found:
            await asyncio.to_thread(_adopt, instance, cut_off["run_id"])
    return len(found)


def _adopt(instance: DagsterInstance, run_id: str) -> None:
    run, coordinator = instance.get_run_by_id(run_id), instance.run_coordinator
    if run is None or not isinstance(coordinator, GraphwrightRunCoordinator):
        return
    try:
        coordinator.enqueue(run)
    except GraphwrightError as error:  # whoever launched it has seen that, and it cannot run
        _log.warning("run %s cannot be queued: %s", run_id, error)
        instance.report_run_failed(run, f"The run could not be queued: {error}")
    else:
        _log.warning("the launch of run %s had been cut off; it is queued now", run_id)
