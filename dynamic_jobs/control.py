"""Cancelling a run, whoever asks: the API, the CLI or the Dagster UI's button.

First the run becomes ``cancelling``, durably. Then either it is taken off the queue and ended here,
or the worker that holds it is told, and ends it. A crash in between leaves a ``cancelling`` run on
the queue, which the next worker to claim it ends.
"""

import logging
import time
from collections.abc import Mapping
from typing import Final, LiteralString

from dagster import DagsterEvent, DagsterEventType, EventLogEntry

from dynamic_jobs.storage import EventWriter
from dynamic_jobs.storage.records import TERMINAL_STATUSES, Record
from foundation.database import AsyncConnection, Connection
from foundation.errors import Conflict, NotFound
from foundation.ids import RunId, TenantId

CANCEL_CHANNEL: Final = "graphwright_cancel"

STATUS: Final[LiteralString] = """
SELECT r.status, d.pipeline_name AS job_name
FROM graphwright.runs r JOIN runs d ON d.run_id = %(run_id)s::text
WHERE r.tenant = %(tenant)s AND r.run_id = %(run_id)s::uuid
"""

DEQUEUE: Final[LiteralString] = (
    "DELETE FROM graphwright.run_queue WHERE run_id = %s RETURNING run_id"
)

CANCELLING: Final[LiteralString] = """
SELECT r.run_id::text FROM unnest(%s::text[], %s::uuid[]) AS held (tenant, run_id)
JOIN graphwright.runs r ON r.tenant = held.tenant AND r.run_id = held.run_id
WHERE r.status = 'cancelling'
"""

NOTIFY: Final[LiteralString] = "SELECT pg_notify('graphwright_cancel', %s)"


def cancel(connection: Connection, writer: EventWriter, tenant: TenantId, run_id: RunId) -> str:
    """Cancel a run and return its status: ``cancelled``, or ``cancelling`` while it winds down.

    Raises:
        NotFound: this tenant has no such run.
        Conflict: the run has ended.
    """
    status, job_name = _status(connection, tenant, run_id)
    if status in TERMINAL_STATUSES:
        raise Conflict(f"the run has ended: {status}", run_id=run_id)
    writer.append(run_record(run_id, job_name, DagsterEventType.PIPELINE_CANCELING))
    writer.flush(run_id)
    if connection.execute(DEQUEUE, (run_id,)).fetchone() is not None:
        writer.append(run_record(run_id, job_name, DagsterEventType.PIPELINE_CANCELED))
        writer.flush(run_id)
    else:
        connection.execute(NOTIFY, (run_id,))
    return _status(connection, tenant, run_id)[0]


async def cancelled(connection: AsyncConnection, runs: Mapping[RunId, TenantId]) -> list[RunId]:
    """Which of these runs are to be cancelled."""
    cursor = await connection.execute(CANCELLING, (list(runs.values()), list(runs)))
    return [RunId(row["run_id"]) for row in await cursor.fetchall()]


def run_record(run_id: RunId, job_name: str, kind: DagsterEventType, message: str = "") -> Record:
    """A run-level Dagster event, ready for the writer."""
    event = DagsterEvent(event_type_value=kind.value, job_name=job_name, message=message or None)
    entry = EventLogEntry(
        error_info=None,
        level=logging.INFO,
        user_message=message,
        run_id=run_id,
        timestamp=time.time(),
        job_name=job_name,
        dagster_event=event,
    )
    return Record.of(entry)


def _status(connection: Connection, tenant: TenantId, run_id: RunId) -> tuple[str, str]:
    row = connection.execute(STATUS, {"tenant": tenant, "run_id": run_id}).fetchone()
    if row is None:
        raise NotFound("there is no such run", run_id=run_id)
    return row["status"], row["job_name"]
