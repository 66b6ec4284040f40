"""New runs, any number of them in one transaction and one statement: Dagster's runs with their tags
and ENQUEUED events, our rows, the queue's, and a wake-up where a worker has declared itself idle.

Everything of them exists after the commit, or nothing does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import orjson
from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus, EventLogEntry
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from dynamic_jobs import naming
from dynamic_jobs.code_pointer import pointer_to
from dynamic_jobs.compiling.compiler import run_tags
from foundation.ids import GraphId, RunId, TenantId, new_id
from graph_defs.json_values import JsonObject
from graph_defs.versions import GraphVersion

WAKE_CHANNEL: Final = "graphwright_queue"

# One JSON text for all rows: psycopg takes ten times as long to write as many arrays. `params` and
# `trigger` are JSON inside of it as text, since PostgreSQL would read their \u0000, and refuse it.
# A run that asks for the published version is made only where that still is the published one; the
# subquery keeps PostgreSQL from joining, for which it may read all graphs.
GIVEN: Final[LiteralString] = """given AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(runs)s::json) AS g (
        tenant text, run_id text, sort_id uuid, graph_id uuid, graph_version_id uuid,
        parent_run_id uuid, trigger text, params text, author text, priority integer,
        not_before timestamptz, live boolean, created_at timestamptz,
        graph text, published integer,
        job_name text, run_body text, job_snapshot_id text, tags json, event text
    )
    WHERE g.published IS NULL OR g.published = (
        SELECT p.version FROM graphwright.graphs p
        WHERE p.tenant = g.tenant AND p.graph_id = g.graph_id AND p.name = g.graph
    )
)"""

INSERT_OURS: Final[LiteralString] = """
INSERT INTO graphwright.runs (
    tenant, run_id, sort_id, graph_id, graph_version_id, parent_run_id, trigger, params, status,
    author, priority, not_before, live, created_at, last_event_id
) SELECT
    tenant, run_id::uuid, sort_id, graph_id, graph_version_id, parent_run_id, trigger::json,
    params::json, 'queued', author, priority, not_before, live, created_at, queued.id
FROM given JOIN queued USING (run_id)
"""

ENQUEUE: Final[LiteralString] = """
INSERT INTO graphwright.run_queue (run_id, tenant, priority, not_before)
SELECT run_id::uuid, tenant, priority, COALESCE(not_before, now()) FROM given
"""

# Not where it was touched just now, and not where somebody else is touching it: the runs of all
# graphs are in one transaction, which must not wait for a lock on one of them.
TOUCH_GRAPHS: Final[LiteralString] = """
touched AS (
    UPDATE graphwright.recent_graphs SET used_at = now() WHERE graph_id IN (
        SELECT r.graph_id FROM graphwright.recent_graphs r
        WHERE r.graph_id IN (SELECT graph_id FROM given)
            AND r.used_at < now() - interval '10 seconds'
        FOR UPDATE SKIP LOCKED
    )
), listed AS (
    INSERT INTO graphwright.recent_graphs (graph_id, tenant, used_at)
    SELECT DISTINCT graph_id, tenant, now() FROM given
    WHERE NOT EXISTS (
        SELECT FROM graphwright.recent_graphs r WHERE r.graph_id = given.graph_id
    )
    ORDER BY graph_id
    ON CONFLICT (graph_id) DO NOTHING
)"""

# NOTIFY takes a lock of the whole instance at commit, so it is sent only to who is waiting, and
# is still there: an idle worker says so every second.
WAKE: Final[LiteralString] = """
SELECT pg_notify('graphwright_queue', '')
WHERE EXISTS (
    SELECT FROM graphwright.workers WHERE idle AND seen_at > now() - interval '10 seconds'
)
"""

CREATE: Final[LiteralString] = f"""
WITH {GIVEN}, dagster AS (
    INSERT INTO runs (run_id, pipeline_name, status, run_body, snapshot_id, create_timestamp,
                      update_timestamp)
    SELECT run_id, job_name, 'QUEUED', run_body, job_snapshot_id, created_at AT TIME ZONE 'UTC',
           created_at AT TIME ZONE 'UTC'
    FROM given
), tagged AS (
    INSERT INTO run_tags (run_id, key, value)
    SELECT given.run_id, t.key, t.value FROM given, json_each_text(given.tags) AS t (key, value)
), queued AS (
    INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp)
    SELECT run_id, event, 'PIPELINE_ENQUEUED', created_at AT TIME ZONE 'UTC' FROM given
    RETURNING id, run_id
), ours AS ({INSERT_OURS}), enqueued AS ({ENQUEUE}), {TOUCH_GRAPHS}, woken AS ({WAKE})
SELECT run_id, (SELECT count(*) FROM woken) AS woken FROM given
"""  # noqa: S608 - made of constants


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a trigger asks for. ``params`` are bound already: checked, and with defaults."""

    run_id: RunId
    params: JsonObject
    trigger: JsonObject
    author: str
    priority: int = 0
    not_before: datetime | None = None
    live: bool = True


def version_values(version: GraphVersion) -> dict[str, str]:
    """What our row of a run says of its version."""
    return {
        "tenant": version.tenant,
        "graph_id": version.graph_id,
        "graph_version_id": version.graph_version_id,
    }


def run_values(new: NewRun, at: float) -> dict[str, Any]:
    """What our row of a run that was asked for ``at`` says of the run itself."""
    return {
        "run_id": new.run_id,
        "sort_id": new_id(),
        "trigger": orjson.dumps(new.trigger).decode(),
        "params": orjson.dumps(new.params).decode(),
        "author": new.author,
        "priority": new.priority,
        "not_before": new.not_before and new.not_before.isoformat(),
        "live": new.live,
        "created_at": datetime.fromtimestamp(at, UTC),
    }


def dagster_run(
    run_id: str,
    version: GraphVersion,
    params: Any,
    tags: Mapping[str, str],
    snapshot_ids: tuple[str, str],
    code_port: int,
) -> DagsterRun:
    """The run as Dagster keeps it, with its code pointer and the ids of its job's and plan's
    snapshots.

    A queued run also needs a remote origin, or every reading of it raises; ours names the code
    server, whether or not the job is in its window.
    """
    job_name = naming.job_name(version.name, GraphId(version.graph_id))
    job_snapshot_id, plan_snapshot_id = snapshot_ids
    return DagsterRun(
        job_name=job_name,
        run_id=run_id,
        run_config={"resources": {naming.PARAMS_RESOURCE: {"config": params}}},
        status=DagsterRunStatus.QUEUED,
        tags={**run_tags(version), **tags},
        job_snapshot_id=job_snapshot_id,
        execution_plan_snapshot_id=plan_snapshot_id,
        remote_job_origin=remote_origin(job_name, code_port),
        job_code_origin=pointer_to(
            TenantId(version.tenant), version.graph_version_id, job_name
        ).get_python_origin(),
    )


def remote_origin(job_name: str, code_port: int) -> RemoteJobOrigin:
    """Where the Dagster UI would look for the job."""
    location = GrpcServerCodeLocationOrigin(
        host="127.0.0.1", port=code_port, location_name=naming.LOCATION
    )
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, naming.REPOSITORY), job_name)


def enqueued(run_id: str, job_name: str, at: float) -> EventLogEntry:
    """The event with which a run's log begins."""
    event = DagsterEvent(
        event_type_value=DagsterEventType.PIPELINE_ENQUEUED.value,
        job_name=job_name,
        message="Enqueued by Graphwright.",
    )
    return EventLogEntry(
        error_info=None,
        level="INFO",
        user_message="",
        run_id=run_id,
        timestamp=at,
        job_name=job_name,
        dagster_event=event,
    )
