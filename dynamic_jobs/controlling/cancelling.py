"""Cancelling a run, whoever asks: the API, the CLI or the Dagster UI's button.

First the run becomes ``cancelling``, durably. Then either it is ended here and taken off the queue,
or the worker that holds it is told, and ends it. A process that dies in between leaves the run on
the queue, due in a few seconds: the next worker to claim it ends it. One that held it looks each
second what is wanted of its runs.
"""

from typing import Final, LiteralString

from dagster import DagsterEventType

from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.controlling.telling import Request, standing_of, tell
from dynamic_jobs.storage import EventWriter
from dynamic_jobs.storage.records import TERMINAL_STATUSES
from foundation.database import Connection
from foundation.errors import Conflict
from foundation.ids import RunId, TenantId

# Rows of the queue are locked before those of runs, as a claim does it. `admitted`, for a run that
# is only to be ended waits for no place.
POSTPONE: Final[LiteralString] = """
UPDATE graphwright.run_queue SET
    state = 'delayed', not_before = now() + interval '10 seconds', admitted = true
WHERE run_id = %(run_id)s AND tenant = %(tenant)s
"""

# A run that is neither held by a worker nor on the queue is paused: it is put there.
CANCELLING: Final[LiteralString] = """
WITH mine AS (
    UPDATE graphwright.runs SET status = 'cancelling', pausing = false
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND ended_at IS NULL
    RETURNING tenant, run_id, graph_id, priority, worker, epoch
), queued AS (
    INSERT INTO graphwright.run_queue (
        tenant, run_id, graph_id, priority, state, not_before, admitted
    )
    SELECT tenant, run_id, graph_id, priority, 'delayed', now() + interval '10 seconds', true
    FROM mine WHERE worker IS NULL
    ON CONFLICT (run_id) DO NOTHING
)
SELECT epoch, worker IS NOT NULL AS held FROM mine
"""

DEQUEUE: Final[LiteralString] = "DELETE FROM graphwright.run_queue WHERE run_id = %s"


def cancel(connection: Connection, writer: EventWriter, tenant: TenantId, run_id: RunId) -> str:
    """Cancel a run and return its status: ``cancelled``, or ``cancelling`` while it winds down.

    Raises:
        NotFound: this tenant has no such run.
        Conflict: the run has ended.
    """
    standing = standing_of(connection, tenant, run_id)
    if standing.status in TERMINAL_STATUSES:
        raise _ended(standing.status, run_id)
    values = {"tenant": tenant, "run_id": run_id}
    with connection.transaction():
        connection.execute(POSTPONE, values)
        marked = connection.execute(CANCELLING, values).fetchone()
    if marked is None:
        raise _ended(standing_of(connection, tenant, run_id).status, run_id)
    writer.append(run_record(run_id, standing.job_name, DagsterEventType.PIPELINE_CANCELING))
    writer.flush(run_id)
    if marked["held"]:
        tell(connection, Request(run_id, "cancel", marked["epoch"]))
    else:
        writer.append(run_record(run_id, standing.job_name, DagsterEventType.PIPELINE_CANCELED))
        writer.flush(run_id)
        connection.execute(DEQUEUE, (run_id,))  # not before: nobody else would end it
    return standing_of(connection, tenant, run_id).status


def _ended(status: str, run_id: RunId) -> Conflict:
    return Conflict(f"the run has ended: {status}", run_id=run_id)
