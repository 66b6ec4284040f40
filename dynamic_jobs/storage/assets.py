"""Dagster's tables about assets, kept in the writer's transaction.

An asset event is a row of ``event_logs`` and, beside it, rows of ``asset_keys`` (the newest of each
asset), ``asset_event_tags`` and ``asset_check_executions``. The rows are those that
``dagster_postgres.PostgresEventLogStorage.store_event`` writes, one event at a time and each on a
connection of its own (tests/dynamic_jobs/test_storage_assets.py compares them); here they commit
with the event, under the lock of its run.

One difference: where several planned rows of a check match one evaluation, Dagster raises after it
has changed them all; here they are changed, and the batch goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dagster import AssetCheckEvaluation, AssetKey, DagsterEvent, DagsterEventType
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.tags import MULTIDIMENSIONAL_PARTITION_PREFIX

from dynamic_jobs.storage import statements
from foundation.database import Connection

_SEEN: Final = {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_OBSERVATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
}
_OF_ITS_RUN: Final = {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
}
_WITH_KEY: Final = ASSET_EVENTS | {
    DagsterEventType.ASSET_HEALTH_CHANGED,
    DagsterEventType.ASSET_WIPED,
}


@dataclass(frozen=True, slots=True)
class AssetNews:
    """What an event says of an asset. ``key`` is Dagster's JSON of the asset key."""

    kind: DagsterEventType
    key: str
    partition: str | None
    tags: tuple[tuple[str, str], ...]
    """Those that Dagster finds events by: data version and dimensions of the partition."""


@dataclass(frozen=True, slots=True)
class CheckNews:
    """What an event says of an asset check: planned, for these partitions, or how it went."""

    status: AssetCheckExecutionRecordStatus
    key: str
    name: str
    partitions: tuple[str | None, ...]
    materialization_id: int | None


@dataclass(frozen=True, slots=True)
class AssetEvent:
    """An asset event as it is stored: its id, and the columns that its side rows repeat."""

    event_id: int
    run_id: str
    event: str
    at: datetime
    asset: AssetNews | None
    check: CheckNews | None


def asset_news(kind: DagsterEventType, event: DagsterEvent) -> AssetNews | None:
    if kind not in _WITH_KEY or not isinstance(key := event.asset_key, AssetKey):
        return None
    tags: dict[str, str] = {}
    if kind is DagsterEventType.ASSET_MATERIALIZATION:
        tags = dict(event.step_materialization_data.materialization.tags or {})
    elif kind is DagsterEventType.ASSET_OBSERVATION:
        tags = dict(event.asset_observation_data.asset_observation.tags)
    found_by = tuple(
        (name, value)
        for name, value in tags.items()
        if name == DATA_VERSION_TAG or name.startswith(MULTIDIMENSIONAL_PARTITION_PREFIX)
    )
    return AssetNews(kind, key.to_string(), event.partition or None, found_by)


def check_news(kind: DagsterEventType, event: DagsterEvent) -> CheckNews | None:
    data = event.event_specific_data
    if isinstance(data, AssetCheckEvaluationPlanned):
        subset = data.partitions_subset
        partitions = tuple(subset.get_partition_keys()) if subset else (None,)
        status = AssetCheckExecutionRecordStatus.PLANNED
        return CheckNews(status, data.asset_key.to_string(), data.check_name, partitions, None)
    if kind is DagsterEventType.ASSET_CHECK_EVALUATION and isinstance(data, AssetCheckEvaluation):
        passed = data.passed
        target = data.target_materialization_data
        return CheckNews(
            AssetCheckExecutionRecordStatus.SUCCEEDED
            if passed
            else AssetCheckExecutionRecordStatus.FAILED,
            data.asset_key.to_string(),
            data.check_name,
            (data.partition,),
            target.storage_id if target else None,
        )
    return None


def store_asset_events(connection: Connection, events: Sequence[AssetEvent]) -> None:
    """Write the side rows of these events, which are stored already, in their order."""
    known = [(event, event.asset) for event in events if event.asset is not None]
    _upsert_keys(connection, known)
    _insert_tags(connection, known)
    for event in events:
        if event.check is not None:  # rare, and each depends on those before it
            _store_check(connection, event, event.check)


def _upsert_keys(connection: Connection, events: Sequence[tuple[AssetEvent, AssetNews]]) -> None:
    newest: dict[str, list[int | str | datetime | None]] = {}
    for event, asset in events:
        if asset.kind not in ASSET_EVENTS:
            continue
        values = newest.setdefault(asset.key, [None, None, None])
        if asset.kind is DagsterEventType.ASSET_MATERIALIZATION:
            values[0] = event.event_id
        if asset.kind in _OF_ITS_RUN:
            values[1] = event.run_id
        if asset.kind in _SEEN:
            values[2] = event.at
    if newest:
        materializations, run_ids, times = zip(*newest.values(), strict=True)
        columns = (list(newest), list(materializations), list(run_ids), list(times))
        connection.execute(statements.UPSERT_ASSET_KEYS, columns)


def _insert_tags(connection: Connection, events: Sequence[tuple[AssetEvent, AssetNews]]) -> None:
    rows = [
        (event.event_id, asset.key, name, value, event.at.replace(tzinfo=None))
        for event, asset in events
        for name, value in asset.tags
        if asset.kind in ASSET_EVENTS
    ]
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(statements.INSERT_ASSET_EVENT_TAGS, columns)


def _store_check(connection: Connection, event: AssetEvent, check: CheckNews) -> None:
    values = {
        "asset_key": check.key,
        "check_name": check.name,
        "partitions": list(check.partitions),
        "run_id": event.run_id,
        "status": check.status.value,
        "event": event.event,
        "at": event.at.replace(tzinfo=None),
        "event_id": event.event_id,
        "materialization_id": check.materialization_id,
    }
    planned = check.status is AssetCheckExecutionRecordStatus.PLANNED
    if planned or not event.run_id:
        connection.execute(statements.INSERT_CHECKS, values)
    else:
        connection.execute(statements.EVALUATE_CHECK, values)
