"""One batch of records, one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import orjson

from dynamic_jobs.reading.events import RunEvent, to_event
from dynamic_jobs.storage import statements
from dynamic_jobs.storage.assets import AssetEvent, store_asset_events
from dynamic_jobs.storage.lease import Lease
from dynamic_jobs.storage.outputs import insert_outputs
from dynamic_jobs.storage.records import STATUS_OF, TERMINAL_STATUSES, Record, StatusChange
from foundation.database import Connection
from foundation.ids import RunId, TenantId

Entry: TypeAlias = tuple[Record, Lease | None]
"""A record and the lease it was appended under, if the process had one."""


@dataclass(slots=True)
class RunState:
    """What this transaction knows, under lock, of one run, and what it will write back."""

    tenant: TenantId
    status: str
    last_event_id: int
    prev: int
    """The run's last event before this batch."""
    live: bool
    limited: bool = False
    """It holds places that others may wait for."""
    notifies: Mapping[str, Mapping[str, str]] | None = None
    """By how it ends, the names of the notices that this sets off, with their lanes."""
    changes: list[StatusChange] = field(default_factory=list[StatusChange])
    events: list[RunEvent] = field(default_factory=list[RunEvent])
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def apply(self, change: StatusChange) -> None:
        """Follow a status change, unless it comes too late: the end is final, a cancel stands."""
        status = STATUS_OF.get(change.dagster)
        if self.status in TERMINAL_STATUSES:
            return
        if self.status == "cancelling" and status not in ("cancelling", *TERMINAL_STATUSES):
            return
        self.changes.append(change)
        self.started_at = self.started_at or change.started_at
        if status is not None:
            self.status = status
            self.ended_at = change.ended_at


@dataclass(slots=True)
class Batch:
    """Records in order, the leases they were appended under, one a run, and what came of it."""

    records: Sequence[Record]
    leases: dict[RunId, Lease]
    runs: dict[RunId, RunState] = field(default_factory=dict[RunId, RunState])
    transaction: str | None = None
    """Its id, once the events are inserted: tells whether a cut commit is still under way."""
    ends: list[tuple[int, RunId, datetime]] = field(
        default_factory=list[tuple[int, RunId, datetime]]
    )
    """Id, run and time of the first and the last event inserted: tells whether it went through."""

    @property
    def freed(self) -> set[TenantId]:
        """The tenants of whom a run has ended that others may have waited for."""
        return {run.tenant for run in self.runs.values() if run.limited and run.ended_at}

    @property
    def notices(self) -> list[tuple[TenantId, RunId, str, str]]:
        """What the ends of runs set off: whose and of which run, its name and its lane."""
        return [
            (run.tenant, run_id, name, lane)
            for run_id, run in self.runs.items()
            if run.ended_at and run.notifies
            for name, lane in run.notifies.get(run.status, {}).items()
        ]

    @property
    def published(self) -> list[tuple[TenantId, RunId, int, list[RunEvent]]]:
        """For each run with news: whose it is, its id, the id of its event before these, and the
        events.
        """
        return [
            (run.tenant, run_id, run.prev, run.events)
            for run_id, run in self.runs.items()
            if run.events and run.live
        ]


def write_batch(connection: Connection, batch: Batch) -> None:
    """Commit the batch. A lease whose epoch has passed becomes ``lost``; its run is left out."""
    with connection.transaction():
        _lock(connection, batch)
        kept = [record for record in batch.records if not _is_lost(batch, record.run_id)]
        if not kept:
            return
        ids = _insert_events(connection, batch, kept)
        for record, event_id in zip(kept, ids, strict=True):
            _follow(batch, record, event_id)
        store_asset_events(connection, _asset_events(kept, ids))
        _insert_outputs(connection, batch, kept)
        _update_runs(connection, batch)
        _insert_notices(connection, batch)
        _update_dagster_runs(connection, batch, kept)


def _is_lost(batch: Batch, run_id: RunId) -> bool:
    lease = batch.leases.get(run_id)
    return lease is not None and lease.lost


def _lock(connection: Connection, batch: Batch) -> None:
    tenants = {run_id: lease.tenant for run_id, lease in batch.leases.items()}
    unknown = list({record.run_id for record in batch.records} - tenants.keys())
    if unknown:
        # The UI, the daemon or a pod writes: the run's tag says whose run it is. A run without one
        # is none of ours and has no row to lock.
        for row in connection.execute(statements.TENANTS, (unknown,)):
            tenants[RunId(row["run_id"])] = TenantId(row["tenant"])
    if not tenants:
        return
    rows = connection.execute(statements.LOCK, (list(tenants.values()), list(tenants)))
    for row in rows:
        run_id = RunId(row["run_id"])
        lease = batch.leases.get(run_id)
        if lease is not None and lease.epoch != row["epoch"]:
            lease.lost = True
            continue
        last = row["last_event_id"]
        batch.runs[run_id] = RunState(
            tenants[run_id],
            row["status"],
            last,
            last,
            row["live"],
            row["limited"],
            row["notifies"],
        )
    for run_id, lease in batch.leases.items():
        if run_id not in batch.runs:  # deleted meanwhile: as lost as one taken over
            lease.lost = True


def _insert_events(connection: Connection, batch: Batch, records: Sequence[Record]) -> list[int]:
    columns = (
        [record.run_id for record in records],
        [record.event for record in records],
        [record.event_type for record in records],
        [record.at.replace(tzinfo=None) for record in records],
        [record.step_key for record in records],
        [record.asset.key if record.asset else None for record in records],
        [record.asset.partition if record.asset else None for record in records],
    )
    rows = connection.execute(statements.INSERT_EVENTS, columns).fetchall()
    batch.transaction = rows[0]["transaction"]
    batch.ends = [
        (rows[i]["id"], records[i].run_id, records[i].at.replace(tzinfo=None)) for i in (0, -1)
    ]
    return [row["id"] for row in rows]


def _asset_events(records: Sequence[Record], ids: Sequence[int]) -> list[AssetEvent]:
    return [
        AssetEvent(event_id, record.run_id, record.event, record.at, record.asset, record.check)
        for record, event_id in zip(records, ids, strict=True)
        if record.asset is not None or record.check is not None
    ]


def _follow(batch: Batch, record: Record, event_id: int) -> None:
    run = batch.runs.get(record.run_id)
    if run is None or run.status in TERMINAL_STATUSES:
        return  # what comes after the end is kept for operators, but is no news
    if record.status is not None:
        run.apply(record.status)
    lease = batch.leases.get(record.run_id) if run.ended_at else None
    outputs = orjson.loads(lease.outputs) if lease and lease.outputs else None
    error = lease.error if lease else None
    event = to_event(
        record.run_id, event_id, record.event, record.event_type, outputs=outputs, error=error
    )
    if event is not None:
        run.events.append(event)
        run.last_event_id = event_id


def _insert_outputs(connection: Connection, batch: Batch, records: Sequence[Record]) -> None:
    rows = {
        (batch.runs[record.run_id].tenant, record.run_id, record.output[0]): record.output[1]
        for record in records
        if record.output is not None and record.run_id in batch.runs
    }
    insert_outputs(connection, rows)


def _update_runs(connection: Connection, batch: Batch) -> None:
    runs = {i: run for i, run in batch.runs.items() if run.events or run.changes}
    if not runs:
        return
    ended = {i: batch.leases.get(i) if run.ended_at else None for i, run in runs.items()}
    connection.execute(
        statements.UPDATE_RUNS,
        (
            [run.tenant for run in runs.values()],
            list(runs),
            [run.last_event_id for run in runs.values()],
            [run.status for run in runs.values()],
            [run.started_at for run in runs.values()],
            [run.ended_at for run in runs.values()],
            [lease.outputs if lease else None for lease in ended.values()],
            [
                orjson.dumps(lease.error).decode() if lease and lease.error else None
                for lease in ended.values()
            ],
        ),
    )


def _insert_notices(connection: Connection, batch: Batch) -> None:
    if notices := batch.notices:
        columns = [list(column) for column in zip(*notices, strict=True)]
        connection.execute(statements.INSERT_NOTICES, columns)


def _update_dagster_runs(connection: Connection, batch: Batch, records: Sequence[Record]) -> None:
    changes = {i: run.changes for i, run in batch.runs.items() if run.changes}
    for record in records:  # runs that are none of ours follow Dagster's own rules
        if record.status is not None and record.run_id not in batch.runs:
            changes.setdefault(record.run_id, []).append(record.status)
    if not changes:
        return
    started = {
        i: next((c.started_at for c in cs if c.started_at), None) for i, cs in changes.items()
    }
    last = {i: cs[-1] for i, cs in changes.items()}
    connection.execute(
        statements.UPDATE_DAGSTER_RUNS,
        (
            list(last),
            [change.dagster.value for change in last.values()],
            [change.at.replace(tzinfo=None) for change in last.values()],
            [at.timestamp() if at else None for at in started.values()],
            [change.ended_at.timestamp() if change.ended_at else None for change in last.values()],
        ),
    )
    for run_id, change in last.items():
        if change.failure_reason is not None:
            _tag_failure(connection, run_id, change.failure_reason)


def _tag_failure(connection: Connection, run_id: RunId, reason: str) -> None:
    row = connection.execute(statements.RUN_BODY, (run_id,)).fetchone()
    if row is None:
        return
    body = orjson.loads(row["run_body"])
    body["tags"]["dagster/failure_reason"] = reason
    values = {"run_id": run_id, "reason": reason, "run_body": orjson.dumps(body).decode()}
    connection.execute(statements.FAILURE_REASON, values)
