"""A new run, in one transaction and one statement: Dagster's run with its tags and its ENQUEUED
event, our row, the queue row, and a wake-up where a worker has declared itself idle.

Everything of it exists after the commit, or nothing does.
"""

import time
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
from dagster._serdes import serialize_value

from dynamic_jobs import naming
from dynamic_jobs.code_pointer import pointer_to
from dynamic_jobs.compiler import CompiledGraph, run_tags
from foundation.ids import RunId, TenantId, new_id
from graph_defs.json_values import JsonObject

WAKE_CHANNEL: Final = "graphwright_queue"

INSERT_OURS: Final[LiteralString] = """
INSERT INTO graphwright.runs (
    tenant, run_id, sort_id, graph_id, graph_version_id, parent_run_id, trigger, params, status,
    author, priority, not_before, live, created_at, last_event_id
) SELECT
    %(tenant)s, %(run_id)s::uuid, %(sort_id)s::uuid, %(graph_id)s::uuid, %(graph_version_id)s::uuid,
    %(parent_run_id)s::uuid, %(trigger)s::json, %(params)s::json, 'queued', %(author)s,
    %(priority)s, %(not_before)s::timestamptz, %(live)s, %(created_at)s, queued.id
FROM queued
"""

ENQUEUE: Final[LiteralString] = """
INSERT INTO graphwright.run_queue (run_id, tenant, priority, not_before)
VALUES (%(run_id)s::uuid, %(tenant)s, %(priority)s, COALESCE(%(not_before)s::timestamptz, now()))
"""

TOUCH_GRAPH: Final[LiteralString] = """
INSERT INTO graphwright.recent_graphs AS r (graph_id, tenant, used_at)
VALUES (%(graph_id)s::uuid, %(tenant)s, now())
ON CONFLICT (graph_id) DO UPDATE SET used_at = excluded.used_at
WHERE r.used_at < excluded.used_at - interval '10 seconds'
"""

# NOTIFY takes a lock of the whole instance at commit, so it is sent only to who is waiting.
WAKE: Final[LiteralString] = """
SELECT pg_notify('graphwright_queue', '')
WHERE EXISTS (SELECT 1 FROM graphwright.workers WHERE idle)
"""

CREATE: Final[LiteralString] = f"""
WITH dagster AS (
    INSERT INTO runs (run_id, pipeline_name, status, run_body, snapshot_id, create_timestamp,
                      update_timestamp)
    VALUES (%(run_id)s::text, %(job_name)s, 'QUEUED', %(run_body)s, %(job_snapshot_id)s,
            %(at)s, %(at)s)
    RETURNING run_id
), tagged AS (
    INSERT INTO run_tags (run_id, key, value)
    SELECT dagster.run_id, t.key, t.value
    FROM dagster, unnest(%(tag_keys)s::text[], %(tag_values)s::text[]) AS t (key, value)
), queued AS (
    INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp)
    VALUES (%(run_id)s::text, %(event)s, 'PIPELINE_ENQUEUED', %(at)s)
    RETURNING id
), ours AS ({INSERT_OURS}), enqueued AS ({ENQUEUE}), touched AS ({TOUCH_GRAPH})
{WAKE}
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


def values_of(new: NewRun, compiled: CompiledGraph, code_port: int) -> dict[str, Any]:
    """The values of :data:`CREATE`."""
    now = time.time()
    run = dagster_run(new, compiled, code_port)
    tags = run.tags_for_storage()
    return {
        **our_values(new, compiled, parent_run_id=None, at=now),
        "job_name": run.job_name,
        "run_body": serialize_value(run),
        "job_snapshot_id": compiled.job_snapshot_id,
        "at": datetime.fromtimestamp(now, UTC).replace(tzinfo=None),
        "tag_keys": list(tags),
        "tag_values": list(tags.values()),
        "event": serialize_value(_enqueued(run, now)),
    }


def our_values(
    new: NewRun, compiled: CompiledGraph, parent_run_id: str | None, at: float
) -> dict[str, Any]:
    """The values of :data:`INSERT_OURS` and :data:`ENQUEUE`."""
    version = compiled.graph.version
    return {
        "tenant": version.tenant,
        "run_id": new.run_id,
        "sort_id": new_id(),
        "graph_id": version.graph_id,
        "graph_version_id": version.graph_version_id,
        "parent_run_id": parent_run_id,
        "trigger": orjson.dumps(new.trigger).decode(),
        "params": orjson.dumps(new.params).decode(),
        "author": new.author,
        "priority": new.priority,
        "not_before": new.not_before,
        "live": new.live,
        "created_at": datetime.fromtimestamp(at, UTC),
    }


def dagster_run(new: NewRun, compiled: CompiledGraph, code_port: int) -> DagsterRun:
    """The run as Dagster keeps it, with its code pointer.

    A queued run also needs a remote origin, or every reading of it raises; ours names the code
    server, whether or not the job is in its window.
    """
    version = compiled.graph.version
    tags = {**run_tags(version), naming.TRIGGER_TAG: str(new.trigger["type"])}
    return DagsterRun(
        job_name=compiled.job.name,
        run_id=new.run_id,
        run_config={"resources": {naming.PARAMS_RESOURCE: {"config": dict(new.params)}}},
        status=DagsterRunStatus.QUEUED,
        tags=tags,
        job_snapshot_id=compiled.job_snapshot_id,
        execution_plan_snapshot_id=compiled.plan_snapshot_id,
        remote_job_origin=remote_origin(compiled.job.name, code_port),
        job_code_origin=pointer_to(
            TenantId(version.tenant), version.graph_version_id, compiled.job.name
        ).get_python_origin(),
    )


def remote_origin(job_name: str, code_port: int) -> RemoteJobOrigin:
    """Where the Dagster UI would look for the job."""
    location = GrpcServerCodeLocationOrigin(
        host="127.0.0.1", port=code_port, location_name=naming.LOCATION
    )
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, naming.REPOSITORY), job_name)


def _enqueued(run: DagsterRun, at: float) -> EventLogEntry:
    event = DagsterEvent(
        event_type_value=DagsterEventType.PIPELINE_ENQUEUED.value,
        job_name=run.job_name,
        message="Enqueued by Graphwright.",
    )
    return EventLogEntry(
        error_info=None,
        level="INFO",
        user_message="",
        run_id=run.run_id,
        timestamp=at,
        job_name=run.job_name,
        dagster_event=event,
    )
