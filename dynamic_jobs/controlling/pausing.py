"""Pausing and resuming a run.

A queued run is taken off the queue at once. One that a worker holds is marked, and the worker told:
it starts no further node, lets those under way finish, and leaves the run, which is then paused.
The mark is in the run's row, so neither the worker's death nor a lost notification loses it.
"""

from collections.abc import Mapping
from typing import Any, Final, LiteralString

import psycopg

from dynamic_jobs.controlling.telling import Request, Standing, standing_of, tell
from dynamic_jobs.creating.statements import STATE
from dynamic_jobs.executing.step_events import run_paused, run_resumed
from dynamic_jobs.queueing.admission import LOCK, admit
from dynamic_jobs.queueing.strikes import MOST_STRIKES, SOLO_STRIKES
from dynamic_jobs.queueing.waking import WAKE
from dynamic_jobs.storage import EventWriter
from dynamic_jobs.storage.records import TERMINAL_STATUSES, Record
from foundation.database import Connection
from foundation.errors import Conflict
from foundation.ids import RunId, TenantId

_TRIES: Final = 5
"""At each look the run may be on its way from the queue to a worker, or back."""

# As a claim does it, the row of the queue is locked before that of the run.
DEQUEUE: Final[LiteralString] = """
DELETE FROM graphwright.run_queue
WHERE run_id = %(run_id)s AND tenant = %(tenant)s AND state <> 'launching'
RETURNING waited
"""

PAUSE: Final[LiteralString] = """
UPDATE graphwright.runs SET
    status = CASE WHEN worker IS NULL THEN 'paused' ELSE status END,
    pausing = worker IS NOT NULL,
    rests = %(waited)s
WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND status IN ('queued', 'running', 'waiting')
    AND (worker IS NOT NULL OR %(dequeued)s)
RETURNING worker IS NOT NULL AS held, epoch, started_at IS NOT NULL AS started, limited
"""

LOCK_QUEUED: Final[LiteralString] = """
SELECT FROM graphwright.run_queue WHERE run_id = %(run_id)s AND tenant = %(tenant)s FOR UPDATE
"""

# A run that has never started queues for its places again.
LEAVE: Final[LiteralString] = """
DELETE FROM graphwright.run_slots WHERE tenant = %(tenant)s AND run_id = %(run_id)s
"""

# One that has started, or holds places, goes to the next worker. It may be on the queue already:
# its worker was lost before it could leave.
RESUME: Final[LiteralString] = f"""
WITH mine AS (
    UPDATE graphwright.runs r SET
        status = CASE WHEN status = 'paused' THEN 'queued' ELSE status END,
        pausing = false,
        limited = limited OR EXISTS (
            SELECT FROM graphwright.tenant_policies p
            WHERE p.tenant = r.tenant AND p.max_running IS NOT NULL
        )
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND (status = 'paused' OR pausing)
    RETURNING tenant, run_id, graph_id, priority, not_before, worker, strikes, slot, slot_limit,
        rests, started_at, isolation
), given AS (
    SELECT mine.*, (
        SELECT paused FROM graphwright.graphs g
        WHERE g.tenant = mine.tenant AND g.graph_id = mine.graph_id
    ) AS paused, EXISTS (
        SELECT FROM graphwright.tenant_policies p
        WHERE p.tenant = mine.tenant AND p.max_running IS NOT NULL
    ) AS limited, started_at IS NOT NULL OR EXISTS (
        SELECT FROM graphwright.run_slots s
        WHERE s.tenant = mine.tenant AND s.run_id = mine.run_id
    ) AS admitted
    FROM mine
)
INSERT INTO graphwright.run_queue (
    run_id, tenant, graph_id, state, priority, not_before, waited, admitted, slot, slot_limit,
    limited
)
SELECT run_id, tenant, graph_id,
    CASE
        WHEN admitted AND strikes BETWEEN %(solo)s AND %(most)s - 1 AND isolation = 'warm'
            THEN 'solo'
        WHEN admitted THEN 'ready'
        ELSE {STATE}
    END,
    priority, CASE WHEN admitted THEN now() ELSE COALESCE(not_before, now()) END, rests, admitted,
    slot, slot_limit, limited
FROM given WHERE worker IS NULL
ON CONFLICT (run_id) DO NOTHING
RETURNING state
"""  # noqa: S608 - made of constants


def pause(connection: Connection, writer: EventWriter, tenant: TenantId, run_id: RunId) -> str:
    """Pause a run and return its status: ``paused``, or another until its worker has left it.

    Raises:
        NotFound: this tenant has no such run.
        Conflict: the run has ended, or is being cancelled.
    """
    values = {"tenant": tenant, "run_id": run_id}
    for _ in range(_TRIES):
        standing = _going(connection, tenant, run_id)
        if standing.status == "paused":
            return standing.status
        found = _pause(connection, values)
        if found is None:
            continue
        if found["held"]:
            tell(connection, Request(run_id, "pause", found["epoch"]))
        else:
            writer.append(Record.of(run_paused(run_id, standing.job_name)))
            writer.flush(run_id)
            if found["limited"] and not found["started"]:
                admit(connection, [tenant])
        return standing_of(connection, tenant, run_id).status
    raise Conflict("the run is just being launched", hint="Try again in a moment.", run_id=run_id)


def resume(connection: Connection, writer: EventWriter, tenant: TenantId, run_id: RunId) -> str:
    """Let a paused run go on, and return its status. One that is not paused stays as it is.

    Raises:
        NotFound: this tenant has no such run.
        Conflict: the run has ended, or is being cancelled.
    """
    standing = _going(connection, tenant, run_id)
    if standing.status == "paused" and not standing.started:
        # Of one that has started, the next worker says so.
        writer.append(Record.of(run_resumed(run_id, standing.job_name)))
        writer.flush(run_id)
    values = {
        "tenant": tenant,
        "run_id": run_id,
        "solo": SOLO_STRIKES,
        "most": MOST_STRIKES,
    }
    with connection.transaction():
        connection.execute(LOCK_QUEUED, values)
        queued = connection.execute(RESUME, values).fetchone()
    if queued is not None and queued["state"] in ("blocked", "limited"):
        admit(connection, [tenant])
    elif queued is not None:
        connection.execute(WAKE)
    return standing_of(connection, tenant, run_id).status


def _pause(connection: Connection, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was found of the run; None where it was neither on the queue nor with a worker."""
    with connection.transaction() as transaction:
        # Else an admission under way might give it a place that it has no more use for.
        connection.execute(LOCK, {"tenants": [values["tenant"]]})
        queued = connection.execute(DEQUEUE, values).fetchone()
        asked = {
            **values,
            "dequeued": queued is not None,
            "waited": queued is not None and queued["waited"],
        }
        found = connection.execute(PAUSE, asked).fetchone()
        if found is None:
            raise psycopg.Rollback(transaction)
        if not found["held"] and not found["started"]:
            connection.execute(LEAVE, values)
        return found
    return None


def _going(connection: Connection, tenant: TenantId, run_id: RunId) -> Standing:
    standing = standing_of(connection, tenant, run_id)
    if standing.status in TERMINAL_STATUSES:
        raise Conflict(f"the run has ended: {standing.status}", run_id=run_id)
    if standing.status == "cancelling":
        raise Conflict("the run is being cancelled", run_id=run_id)
    return standing
