"""New runs: what a trigger asks for, as Dagster keeps it and as the values of a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

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
from dynamic_jobs.creating.trigger import Parent
from foundation.ids import GraphId, RunId, TenantId, new_id
from graph_defs.json_values import JsonObject
from graph_defs.notified import notified
from graph_defs.versions import GraphVersion

Refusal: TypeAlias = Literal[
    "unpublished", "queue_full", "runs_per_day", "busy", "key_used", "parent_gone"
]
"""Why a run is not made. ``unpublished``: its version is not the published one any more;
``key_used``: its Idempotency-Key has been used; ``parent_gone``: the run that it repeats was
removed."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What a run shares with the runs that it may not run beside, and how many may hold it."""

    name: str
    limit: int
    rejects: bool = False
    """Without a free place the run is not made."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The key that a trigger was sent with, and a digest of all that it asks for."""

    key: str
    request: str


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
    slot: Slot | None = None
    idempotency: Idempotency | None = None
    parent: Parent | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    traceparent: str | None = None


def version_values(version: GraphVersion) -> dict[str, Any]:
    """What our row of a run says of its version."""
    return {
        "tenant": version.tenant,
        "graph_id": version.graph_id,
        "graph_version_id": version.graph_version_id,
        "notifies": notified(version.document),
        "isolation": version.document.get("isolation", "warm"),
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
        "parent_run_id": new.parent and new.parent.run_id,
        "slot": new.slot and new.slot.name,
        "slot_limit": new.slot and new.slot.limit,
        "rejects": new.slot is not None and new.slot.rejects,
        "idempotency_key": new.idempotency and new.idempotency.key,
        "request": new.idempotency and new.idempotency.request,
        "traceparent": new.traceparent,
    }


def dagster_run(
    run_id: str,
    version: GraphVersion,
    params: Any,
    tags: Mapping[str, str],
    snapshot_ids: tuple[str, str],
    code_server: tuple[str, int],
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
        remote_job_origin=remote_origin(job_name, code_server),
        job_code_origin=pointer_to(
            TenantId(version.tenant), version.graph_version_id, job_name
        ).get_python_origin(),
    )


def remote_origin(job_name: str, code_server: tuple[str, int]) -> RemoteJobOrigin:
    """Where the Dagster UI would look for the job."""
    return RemoteJobOrigin(remote_repository(code_server), job_name)


def remote_repository(code_server: tuple[str, int]) -> RemoteRepositoryOrigin:
    """Our repository, as the workspace names it."""
    host, port = code_server
    location = GrpcServerCodeLocationOrigin(host=host, port=port, location_name=naming.LOCATION)
    return RemoteRepositoryOrigin(location, naming.REPOSITORY)


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
