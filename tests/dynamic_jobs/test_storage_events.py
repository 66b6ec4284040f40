"""What Dagster asks of an event log, answered alike by its own PostgreSQL storage and by ours."""

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    EventLogEntry,
    EventRecordsFilter,
)
from dagster._core.event_api import EventLogCursor, RunStatusChangeRecordsFilter
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData, StepSuccessData
from dagster._core.execution.stats import StepEventStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._utils.concurrency import ConcurrencySlotStatus
from dagster._utils.error import SerializableErrorInfo

from tests.dynamic_jobs.storages import KINDS, SINCE, Kind, entry, instance_over, materialized


@pytest.fixture(params=KINDS)
def instance(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Generator[DagsterInstance]:
    kind: Kind = request.param
    with instance_over(kind, database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def log(instance: DagsterInstance) -> SqlEventLogStorage:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    return storage


def kinds(events: Any) -> list[str | None]:
    return [event.dagster_event_type.value if event.dagster_event else None for event in events]


FAULT = StepFailureData(SerializableErrorInfo("broken", [], "ValueError"), None)
STEPS = (
    entry(DagsterEventType.PIPELINE_ENQUEUED, step=None, at=0),
    entry(DagsterEventType.PIPELINE_STARTING, step=None, at=1),
    entry(DagsterEventType.PIPELINE_START, step=None, at=2),
    entry(DagsterEventType.STEP_START, step="good", at=3),
    entry(step="good", text="a log line", at=4),
    materialized("a", step="good", at=5),
    entry(DagsterEventType.STEP_SUCCESS, StepSuccessData(2000.0), step="good", at=6),
    entry(DagsterEventType.STEP_START, step="bad", at=7),
    entry(DagsterEventType.STEP_UP_FOR_RETRY, step="bad", at=8),
    entry(DagsterEventType.STEP_RESTARTED, step="bad", at=9),
    entry(DagsterEventType.STEP_FAILURE, FAULT, step="bad", at=10),
    entry(DagsterEventType.STEP_SKIPPED, step="after", at=11),
    entry(DagsterEventType.PIPELINE_FAILURE, JobFailureData(None), step=None, at=12),
)


def store(log: SqlEventLogStorage, *events: EventLogEntry) -> None:
    for event in events:
        log.store_event(event)


def test_what_is_stored_is_read_back_as_it_was(log: SqlEventLogStorage) -> None:
    assert log.get_logs_for_run("run-1") == []
    store(log, *STEPS, entry(run="run-2", text="of another run"))
    assert log.get_logs_for_run("run-1") == list(STEPS)
    assert kinds(log.get_logs_for_run("run-2")) == [None]


def test_a_runs_events_page_by_page_in_both_directions(log: SqlEventLogStorage) -> None:
    store(log, *STEPS)
    for ascending in (True, False):
        read: list[EventLogEntry] = []
        cursor: str | None = None
        more = True
        while more:
            page = log.get_records_for_run("run-1", cursor, limit=5, ascending=ascending)
            read += [record.event_log_entry for record in page.records]
            cursor, more = page.cursor, page.has_more
        assert read == (list(STEPS) if ascending else list(reversed(STEPS)))
        assert log.get_records_for_run("run-1", cursor, ascending=ascending).records == []
    records = log.get_records_for_run("run-1").records
    second = EventLogCursor.from_storage_id(records[1].storage_id).to_string()
    rest = log.get_logs_for_run("run-1", second)
    assert rest == list(STEPS[2:])


def test_a_runs_events_of_some_types(log: SqlEventLogStorage) -> None:
    store(log, *STEPS)
    one = log.get_logs_for_run("run-1", of_type=DagsterEventType.STEP_START)
    assert [event.step_key for event in one] == ["good", "bad"]
    two = {DagsterEventType.STEP_START, DagsterEventType.STEP_SKIPPED}
    assert kinds(log.get_logs_for_run("run-1", of_type=two, limit=2)) == ["STEP_START"] * 2
    assert kinds(log.get_logs_for_run("run-1", of_type=two, ascending=False)) == [
        "STEP_SKIPPED",
        "STEP_START",
        "STEP_START",
    ]


def test_events_come_in_batches_too(log: SqlEventLogStorage) -> None:
    batch = [materialized("a", str(number), at=number) for number in range(5)]
    log.store_event_batch(batch)
    assert log.get_logs_for_run("run-1") == batch
    assert log.get_materialized_partitions(AssetKey("a")) == set("01234")


def test_a_runs_statistics(log: SqlEventLogStorage) -> None:
    store(log, *STEPS)
    stats = log.get_stats_for_run("run-1")
    assert (stats.steps_succeeded, stats.steps_failed) == (1, 1)
    assert (stats.materializations, stats.expectations) == (1, 0)
    times = (stats.enqueued_time, stats.launch_time, stats.start_time, stats.end_time)
    expected = tuple(SINCE + seconds for seconds in (0, 1, 2, 12))
    assert times == pytest.approx(expected, abs=1e-4)


def test_a_runs_steps(log: SqlEventLogStorage) -> None:
    store(log, *STEPS)
    steps = {step.step_key: step for step in log.get_step_stats_for_run("run-1")}
    assert {key: step.status for key, step in steps.items()} == {
        "good": StepEventStatus.SUCCESS,
        "bad": StepEventStatus.FAILURE,
        "after": StepEventStatus.SKIPPED,
    }
    assert steps["bad"].attempts == 2
    good = steps["good"]
    assert (good.start_time, good.end_time) == pytest.approx((SINCE + 3, SINCE + 6), abs=1e-4)
    assert len(good.materialization_events) == 1
    only = log.get_step_stats_for_run("run-1", ["bad"])
    assert [step.step_key for step in only] == ["bad"]


def test_events_of_all_runs_by_id(log: SqlEventLogStorage) -> None:
    assert not log.get_maximum_record_id()
    store(log, *STEPS, entry(DagsterEventType.STEP_START, run="run-2"))
    events = log.get_logs_for_all_runs_by_log_id()
    assert list(events) == list(range(1, len(STEPS) + 2))
    assert log.get_maximum_record_id() == len(STEPS) + 1
    some = log.get_logs_for_all_runs_by_log_id(
        after_cursor=4, dagster_event_type={DagsterEventType.STEP_START}, limit=1
    )
    assert {number: event.step_key for number, event in some.items()} == {8: "bad"}


def test_event_records_are_filtered(log: SqlEventLogStorage) -> None:
    store(log, *STEPS, entry(DagsterEventType.STEP_START, run="run-2", at=20))

    def ids(ascending: bool = True, limit: int | None = None, **conditions: Any) -> list[int]:
        wanted = EventRecordsFilter(DagsterEventType.STEP_START, **conditions)
        return [
            record.storage_id
            for record in log.get_event_records(wanted, limit=limit, ascending=ascending)
        ]

    assert ids() == [4, 8, 14]
    assert ids(ascending=False, limit=2) == [14, 8]
    assert ids(after_cursor=4) == [8, 14]
    assert ids(before_cursor=14) == [4, 8]
    assert ids(after_timestamp=SINCE + 5) == [8, 14]
    assert ids(before_timestamp=SINCE + 5) == [4]
    assert ids(storage_ids=[8, 9]) == [8]


def test_changes_of_run_status(instance: DagsterInstance, log: SqlEventLogStorage) -> None:
    instance.run_storage.add_run(DagsterRun(job_name="job", run_id="run-1"))
    store(log, *STEPS)
    page = log.fetch_run_status_changes(DagsterEventType.PIPELINE_START, limit=10)
    assert [record.run_id for record in page.records] == ["run-1"]
    for after, found in ((12, 1), (13, 0)):
        wanted = RunStatusChangeRecordsFilter(
            DagsterEventType.PIPELINE_FAILURE, after_storage_id=after
        )
        assert len(log.fetch_run_status_changes(wanted, limit=1).records) == found


def test_the_failure_of_a_run_is_read_back(log: SqlEventLogStorage) -> None:
    data = JobFailureData(
        SerializableErrorInfo("it broke", ["line 1"], "ValueError"),
        failure_reason=RunFailureReason.STEP_FAILURE,
        first_step_failure_event=STEPS[10].dagster_event,
    )
    event = entry(DagsterEventType.PIPELINE_FAILURE, data, step=None)
    store(log, event)
    assert log.get_logs_for_run("run-1") == [event]


def test_deleted_events_are_gone(log: SqlEventLogStorage) -> None:
    store(log, *STEPS, entry(run="run-2"))
    log.delete_events("run-1")
    assert log.get_logs_for_run("run-1") == []
    assert len(log.get_logs_for_run("run-2")) == 1
    log.wipe()
    assert log.get_logs_for_run("run-2") == []


def test_watchers_are_told_of_new_events(log: SqlEventLogStorage) -> None:
    told: list[str | None] = []
    seen = threading.Event()

    def watcher(event: EventLogEntry, cursor: str) -> None:
        told.append(event.step_key)
        if event.step_key == "last":
            seen.set()

    log.watch("run-1", None, watcher)
    store(log, entry(step="first"), entry(run="run-2", step="other"), entry(step="last"))
    assert seen.wait(30)
    log.end_watch("run-1", watcher)
    assert told == ["first", "last"]


def test_concurrency_slots(instance: DagsterInstance, log: SqlEventLogStorage) -> None:
    instance.run_storage.add_run(DagsterRun(job_name="job", run_id="run-1"))
    assert log.supports_global_concurrency_limits
    log.set_concurrency_slots("pool", 1)
    assert log.get_concurrency_keys() == {"pool"}
    claimed = log.claim_concurrency_slot("pool", "run-1", "one")
    blocked = log.claim_concurrency_slot("pool", "run-1", "two")
    assert claimed.slot_status == ConcurrencySlotStatus.CLAIMED
    assert blocked.slot_status == ConcurrencySlotStatus.BLOCKED
    assert log.get_concurrency_info("pool").active_slot_count == 1
    assert log.get_concurrency_run_ids() == {"run-1"}
    log.free_concurrency_slot_for_step("run-1", "one")
    assert log.claim_concurrency_slot("pool", "run-1", "two").is_claimed
    assert log.check_concurrency_claim("pool", "run-1", "two").is_claimed
    log.free_concurrency_slots_for_run("run-1")
    assert log.get_concurrency_info("pool").active_slot_count == 0
    assert [limit.limit for limit in log.get_pool_limits()] == [1]
    log.delete_concurrency_limit("pool")
    assert log.get_concurrency_keys() == set()


def test_it_says_what_it_is(log: SqlEventLogStorage) -> None:
    assert log.is_persistent
    assert not log.is_run_sharded
    assert log.supports_asset_checks
    assert log.alembic_version() is not None
    log.optimize_for_webserver(statement_timeout=5_000, pool_recycle=60, max_overflow=5)
    log.reindex_events()
    log.reindex_assets()
    store(log, entry(text="still there"))
    assert len(log.get_logs_for_run("run-1")) == 1
