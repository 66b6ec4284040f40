"""What Dagster asks about assets, answered alike by its own PostgreSQL storage and by ours."""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    EventRecordsFilter,
)
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue

from tests.dynamic_jobs.storages import (
    KINDS,
    SINCE,
    Kind,
    check_planned,
    checked,
    instance_over,
    materialized,
    observed,
    planned,
)

A, B = AssetKey("a"), AssetKey(["b", "c"])
MATERIALIZATION = DagsterEventType.ASSET_MATERIALIZATION


@pytest.fixture(params=KINDS)
def instance(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Generator[DagsterInstance]:
    kind: Kind = request.param
    with instance_over(kind, database_url, tmp_path) as opened:
        for run_id in ("run-1", "run-2"):
            opened.run_storage.add_run(DagsterRun(job_name="job", run_id=run_id))
        yield opened


@pytest.fixture
def log(instance: DagsterInstance) -> SqlEventLogStorage:
    """With ids: a plan 1, materializations of a 2, 3, of b/c 4, 5, an observation of a 6."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    for event in (
        planned("a", at=1),
        materialized("a", at=2, tags={DATA_VERSION_TAG: "v1"}),
        materialized("a", at=3, run="run-2", tags={DATA_VERSION_TAG: "v2"}),
        materialized("b/c", "p", at=4, tags={DATA_VERSION_TAG: "b1"}),
        materialized("b/c", "q", at=5, tags={DATA_VERSION_TAG: "b2"}),
        observed("a", at=6, tags={DATA_VERSION_TAG: "seen"}),
    ):
        storage.store_event(event)
    return storage


def test_keys(log: SqlEventLogStorage) -> None:
    assert log.has_asset_key(A)
    assert not log.has_asset_key(AssetKey("none"))
    assert log.all_asset_keys() == [A, B]
    assert log.get_asset_keys(prefix=["b"]) == [B]
    assert log.get_asset_keys(limit=1) == [A]
    assert log.get_asset_keys(cursor=A.to_string()) == [B]


def test_records(log: SqlEventLogStorage) -> None:
    records = {
        record.asset_entry.asset_key: record.asset_entry for record in log.get_asset_records()
    }
    assert set(records) == {A, B}
    assert records[A].last_run_id == "run-2"
    assert records[A].last_materialization_storage_id == 3
    assert [r.asset_entry.asset_key for r in log.get_asset_records([B])] == [B]
    latest = log.get_latest_materialization_events([A, B, AssetKey("none")])
    told = {key: event.timestamp for key, event in latest.items() if event is not None}
    assert told == {A: SINCE + 3, B: SINCE + 5}


def test_records_of_events_by_asset_and_partition(log: SqlEventLogStorage) -> None:
    def ids(**conditions: Any) -> list[int]:
        wanted = EventRecordsFilter(MATERIALIZATION, **conditions)
        return [r.storage_id for r in log.get_event_records(wanted, ascending=True)]

    assert ids(asset_key=A) == [2, 3]
    assert ids(asset_key=B, asset_partitions=["q"]) == [5]
    assert ids(asset_key=A, after_cursor=2) == [3]
    assert ids(asset_key=A, before_cursor=3) == [2]
    assert ids(asset_key=A, after_timestamp=SINCE + 2.5) == [3]


def test_materializations_page_by_page(log: SqlEventLogStorage) -> None:
    first = log.fetch_materializations(A, limit=1)
    assert ([r.storage_id for r in first.records], first.has_more) == ([3], True)
    second = log.fetch_materializations(A, limit=5, cursor=first.cursor)
    assert ([r.storage_id for r in second.records], second.has_more) == ([2], False)
    some = AssetRecordsFilter(B, asset_partitions=["p"], storage_ids=[4, 5])
    assert [r.storage_id for r in log.fetch_materializations(some, limit=5).records] == [4]
    assert [r.storage_id for r in log.fetch_observations(A, limit=5).records] == [6]


def test_partitions(log: SqlEventLogStorage) -> None:
    assert log.get_materialized_partitions(B) == {"p", "q"}
    assert log.get_materialized_partitions(B, before_cursor=5) == {"p"}
    assert log.get_materialized_partitions(B, after_cursor=4) == {"q"}
    latest = log.get_latest_storage_id_by_partition(B, MATERIALIZATION)
    assert latest == {"p": 4, "q": 5}
    assert log.get_latest_storage_id_by_partition(B, MATERIALIZATION, {"q"}) == {"q": 5}


def test_attempts_that_came_to_nothing(log: SqlEventLogStorage) -> None:
    log.store_event(planned("b/c", "p", at=7, run="run-2"))
    log.store_event(planned("b/c", "r", at=8, run="run-2"))
    attempts = log.get_latest_asset_partition_materialization_attempts_without_materializations(B)
    assert attempts == {"p": ("run-2", 7), "r": ("run-2", 8)}
    info = log.get_latest_planned_materialization_info(B, partition="r")
    assert info is not None
    assert (info.storage_id, info.run_id) == (8, "run-2")
    whole = log.get_latest_planned_materialization_info(A)
    assert whole is not None
    assert whole.storage_id == 1


def test_tags_and_data_versions(log: SqlEventLogStorage) -> None:
    tags = log.get_event_tags_for_asset(A)
    assert [tag[DATA_VERSION_TAG] for tag in tags] == ["v1", "v2", "seen"]
    assert log.get_event_tags_for_asset(A, filter_event_id=3) == [{DATA_VERSION_TAG: "v2"}]
    assert log.get_event_tags_for_asset(A, {DATA_VERSION_TAG: "v1"}) == [{DATA_VERSION_TAG: "v1"}]
    by_partition = log.get_latest_tags_by_partition(B, MATERIALIZATION, [DATA_VERSION_TAG])
    assert by_partition == {"p": {DATA_VERSION_TAG: "b1"}, "q": {DATA_VERSION_TAG: "b2"}}
    log.store_event(materialized("b/c", "p", at=9, tags={DATA_VERSION_TAG: "b9"}))
    assert log.get_updated_data_version_partitions(B, ["p", "q"], since_storage_id=5) == {"p"}


def test_a_wiped_asset_is_gone_until_it_is_written_again(log: SqlEventLogStorage) -> None:
    log.wipe_asset(A)
    assert not log.has_asset_key(A)
    assert log.all_asset_keys() == [B]
    assert log.get_latest_materialization_events([A]).get(A) is None
    at = time.time() + 1 - SINCE  # after the wipe, whenever that is
    log.store_event(materialized("a", at=at))
    assert log.has_asset_key(A)
    assert log.fetch_materializations(A, limit=5).records[0].timestamp == SINCE + at


def test_the_cached_status_of_partitions(log: SqlEventLogStorage) -> None:
    cached = AssetStatusCacheValue(latest_storage_id=5, partitions_def_id="d")
    log.update_asset_cached_status_data(B, cached)
    assert log.get_asset_records([B])[0].asset_entry.cached_status == cached
    log.wipe_asset_cached_status(B)
    assert log.get_asset_records([B])[0].asset_entry.cached_status is None


def test_dynamic_partitions(log: SqlEventLogStorage) -> None:
    log.add_dynamic_partitions("days", ["mon", "tue"])
    log.add_dynamic_partitions("days", ["tue", "wed"])
    assert log.get_dynamic_partitions("days") == ["mon", "tue", "wed"]
    assert log.has_dynamic_partition("days", "tue")
    log.delete_dynamic_partition("days", "tue")
    assert not log.has_dynamic_partition("days", "tue")
    page = log.get_paginated_dynamic_partitions("days", limit=1, ascending=True)
    assert (page.results, page.has_more) == (["mon"], True)


def test_checks(log: SqlEventLogStorage) -> None:
    key = AssetCheckKey(A, "fresh")
    log.store_event(check_planned("a", "fresh", at=20))
    assert _statuses(log, key) == [AssetCheckExecutionRecordStatus.PLANNED]
    log.store_event(checked("a", "fresh", passed=False, at=21))
    log.store_event(check_planned("a", "fresh", at=22, run="run-2"))
    log.store_event(checked("a", "fresh", passed=True, at=23, run="run-2"))
    assert _statuses(log, key) == [
        AssetCheckExecutionRecordStatus.SUCCEEDED,
        AssetCheckExecutionRecordStatus.FAILED,
    ]
    latest = log.get_latest_asset_check_execution_by_key([key])[key]
    assert (latest.run_id, latest.status) == ("run-2", AssetCheckExecutionRecordStatus.SUCCEEDED)
    assert latest.event is not None
    summary = log.get_asset_check_summary_records([key])[key]
    assert summary.last_check_execution_record is not None


def _statuses(log: SqlEventLogStorage, key: AssetCheckKey) -> list[AssetCheckExecutionRecordStatus]:
    return [record.status for record in log.get_asset_check_execution_history(key, limit=10)]
