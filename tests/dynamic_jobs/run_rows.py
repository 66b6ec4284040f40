"""Runs and their Dagster events, written by SQL as the event writer in a worker writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from dagster import DagsterEvent, DagsterEventType, EventLogEntry, MetadataValue
from dagster._core.events import HandledOutputData
from dagster._core.execution.plan.objects import (
    ErrorSource,
    StepFailureData,
    StepSuccessData,
    UserFailureData,
)
from dagster._serdes import serialize_value
from dagster._utils.error import SerializableErrorInfo
from psycopg.types.json import Jsonb

from dynamic_jobs.reading.events import RunEvent, channel_of, to_event
from foundation.database import Connection, connect
from foundation.ids import RunId, TenantId, new_id
from foundation.redis import sync_redis

ACME = TenantId("acme")

_STATUS = {
    "PIPELINE_START": "running",
    "PIPELINE_SUCCESS": "succeeded",
    "PIPELINE_FAILURE": "failed",
    "PIPELINE_CANCELED": "cancelled",
}


def entry(
    kind: DagsterEventType | None,
    node: str | None = None,
    data: Any = None,
    *,
    message: str = "",
    level: int = 10,
    tags: dict[str, str] | None = None,
    at: float = 1_700_000_000.25,
) -> EventLogEntry:
    """An entry of Dagster's event log; without a ``kind`` a line that was logged."""
    event = kind and DagsterEvent(
        event_type_value=kind.value,
        job_name="job",
        step_key=node,
        event_specific_data=data,
        message=message,
        logging_tags=tags,
    )
    return EventLogEntry(None, level, message, "unset", at, node, "job", event)


def line(node: str | None, text: str, level: int = 20) -> EventLogEntry:
    return entry(None, node, message=text, level=level)


def handled_output(node: str, value: Any) -> EventLogEntry:
    metadata = {
        "bytes": MetadataValue.int(len(orjson.dumps(value))),
        "value": MetadataValue.json({"output": value}),
    }
    data = HandledOutputData("result", "io_manager", metadata)
    return entry(DagsterEventType.HANDLED_OUTPUT, node, data)


def success(node: str, duration_ms: float = 2.5) -> EventLogEntry:
    return entry(DagsterEventType.STEP_SUCCESS, node, StepSuccessData(duration_ms=duration_ms))


def failure(node: str, code: str, message: str, hint: str) -> EventLogEntry:
    """A failure of ours, as the step executor writes it."""
    metadata = {"code": MetadataValue.text(code), "hint": MetadataValue.text(hint)}
    data = StepFailureData(
        SerializableErrorInfo(message, ["  File secret.py\n"], "SomeError"),
        UserFailureData("intentional-failure", message, metadata),
        ErrorSource.USER_CODE_ERROR,
    )
    return entry(DagsterEventType.STEP_FAILURE, node, data)


def ran(node: str, value: Any = 1) -> list[EventLogEntry]:
    """All that Dagster logs of a node that succeeds, of which clients see four events."""
    return [
        entry(DagsterEventType.STEP_START, node),
        line(node, f"{node} says hello"),
        entry(DagsterEventType.LOADED_INPUT, node),
        handled_output(node, value),
        success(node),
    ]


@dataclass
class RunRows:
    """One run in the database, and a writer of its events."""

    database_url: str
    redis_url: str = ""
    tenant: TenantId = ACME
    nodes: Sequence[str] = ("a", "b")
    graph: str = "digest"
    run_id: RunId = field(default_factory=lambda: RunId(new_id()))
    graph_id: str = field(default_factory=new_id)
    events: list[RunEvent] = field(default_factory=list[RunEvent])
    """What clients see of all that was written."""

    def __post_init__(self) -> None:
        document = {"nodes": {node: {"type": "work.sleep"} for node in self.nodes}}
        version_id = new_id()
        with connect(self.database_url) as connection, connection.transaction():
            connection.execute(
                "INSERT INTO graphwright.tenants VALUES (%s) ON CONFLICT DO NOTHING", [self.tenant]
            )
            connection.execute(
                "INSERT INTO graphwright.graphs (tenant, graph_id, name, version)"
                " VALUES (%s, %s, %s, 1) ON CONFLICT DO NOTHING",
                [self.tenant, self.graph_id, self.graph],
            )
            connection.execute(
                "INSERT INTO graphwright.graph_versions (tenant, graph_version_id, graph_id,"
                " version, fingerprint, document, node_types, author)"
                " VALUES (%s, %s, %s, (SELECT count(*) + 1 FROM graphwright.graph_versions"
                " WHERE graph_id = %s), %s, %s, '{}', 'test')",
                [
                    self.tenant,
                    version_id,
                    self.graph_id,
                    self.graph_id,
                    version_id.encode(),
                    orjson.dumps(document).decode(),
                ],
            )
            connection.execute(
                "INSERT INTO graphwright.runs (tenant, run_id, sort_id, graph_id,"
                " graph_version_id, trigger, params, status, author)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, 'queued', 'me')",
                [
                    self.tenant,
                    self.run_id,
                    self.run_id,
                    self.graph_id,
                    version_id,
                    Jsonb({"type": "rest"}),
                    Jsonb({"x": 1}),
                ],
            )

    def write(
        self, *entries: EventLogEntry, outputs: Any = None, error: Any = None, publish: bool = True
    ) -> str:
        """Commit entries in one transaction, publish them, and return the message."""
        rows = [_row(entry._replace(run_id=self.run_id)) for entry in entries]
        prev = self.events[-1]["id"] if self.events else "0"
        new: list[RunEvent] = []
        with connect(self.database_url) as connection, connection.transaction():
            ids = connection.execute(
                "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key)"
                " SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::timestamp[], %s::text[])"
                " RETURNING id",
                [self.run_id, *map(list, zip(*rows, strict=True))],
            )
            for (text, kind, at, _), inserted in zip(rows, ids, strict=True):
                event = to_event(
                    self.run_id, inserted["id"], text, kind, outputs=outputs, error=error
                )
                if event is not None:
                    new.append(event)
                if status := _STATUS.get(kind or ""):
                    self._set_status(connection, status, at, outputs, error)
            self.events += new
            if self.events:
                connection.execute(
                    "UPDATE graphwright.runs SET last_event_id = %s WHERE run_id = %s",
                    [int(self.events[-1]["id"]), self.run_id],
                )
        message = orjson.dumps({"prev": prev, "events": new}).decode()
        if publish and new and self.redis_url:
            self.publish(message)
        return message

    def publish(self, *messages: str) -> None:
        with sync_redis(self.redis_url) as redis:
            for message in messages:
                redis.publish(channel_of(self.run_id), message)

    def succeed(self, outputs: Any = None, *, publish: bool = True) -> str:
        ended = entry(DagsterEventType.RUN_SUCCESS)
        return self.write(ended, outputs=outputs, publish=publish)

    def run_whole(self, outputs: Any = None) -> None:
        """Queue, start, run each node, succeed: each in a transaction of its own."""
        self.write(entry(DagsterEventType.RUN_ENQUEUED))
        self.write(entry(DagsterEventType.RUN_DEQUEUED), entry(DagsterEventType.RUN_START))
        for node in self.nodes:
            self.write(*ran(node))
        self.succeed(outputs)

    def _set_status(
        self, connection: Connection, status: str, at: datetime, outputs: Any, error: Any
    ) -> None:
        connection.execute(
            "UPDATE graphwright.runs SET status = %s, outputs = %s, error = %s,"
            " ended_at = CASE WHEN %s THEN %s AT TIME ZONE 'UTC' END WHERE run_id = %s",
            [
                status,
                Jsonb(outputs) if outputs is not None else None,
                Jsonb(error) if error is not None else None,
                status != "running",
                at,
                self.run_id,
            ],
        )


def _row(logged: EventLogEntry) -> tuple[str, str | None, datetime, str | None]:
    kind = logged.dagster_event.event_type_value if logged.dagster_event else None
    at = datetime.fromtimestamp(logged.timestamp, UTC).replace(tzinfo=None)
    return serialize_value(logged), kind, at, logged.step_key
