"""What Dagster asks of its runs, answered alike by its own PostgreSQL storage and by ours."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunsFilter,
    job,  # pyright: ignore[reportUnknownVariableType]
    op,
)
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.snap import JobSnap, create_execution_plan_snapshot_id
from dagster._core.snap.execution_plan_snapshot import snapshot_from_execution_plan
from dagster._core.storage.runs import SqlRunStorage
from dagster._daemon.types import DaemonHeartbeat

from tests.dynamic_jobs.storages import KINDS, SINCE, Kind, entry, instance_over


@pytest.fixture(params=KINDS)
def instance(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Generator[DagsterInstance]:
    kind: Kind = request.param
    with instance_over(kind, database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def runs(instance: DagsterInstance) -> SqlRunStorage:
    """Four runs: of two jobs, with tags, the last one started by the second."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    for number, tags in enumerate(({"team": "red"}, {"team": "blue"}, {}), 1):
        run = DagsterRun(job_name="job", run_id=f"run-{number}", tags=tags)
        storage.add_run(run.with_status(DagsterRunStatus.NOT_STARTED))
    storage.add_run(
        DagsterRun(
            job_name="other", run_id="run-4", root_run_id="run-2", parent_run_id="run-2",
            tags={"dagster/root_run_id": "run-2", "dagster/parent_run_id": "run-2"},
        )
    )  # fmt: skip
    return storage


@op
def nothing() -> None: ...


@job
def lone() -> None:
    nothing()


def happen(instance: DagsterInstance, kind: DagsterEventType, at: float, **more: Any) -> None:
    """As Dagster reports it, which also lets the storage that does not do so change the status."""
    instance.handle_new_event(entry(kind, at=at, step=None, **more))


def test_runs_are_found(runs: SqlRunStorage) -> None:
    def ids(*args: Any, **conditions: Any) -> list[str]:
        return [run.run_id for run in runs.get_runs(RunsFilter(*args, **conditions))]

    assert ids() == ["run-4", "run-3", "run-2", "run-1"]
    assert ids(run_ids=["run-2", "none"]) == ["run-2"]
    assert ids(job_name="other") == ["run-4"]
    assert ids(tags={"team": "red"}) == ["run-1"]
    assert ids(tags={"team": ["red", "blue"]}) == ["run-2", "run-1"]
    assert ids(statuses=[DagsterRunStatus.SUCCESS]) == []
    assert runs.get_run_ids(cursor="run-3", limit=1) == ["run-2"]
    assert runs.get_runs_count(RunsFilter(job_name="job")) == 3
    assert runs.has_run("run-1")
    assert not runs.has_run("none")
    assert [r.dagster_run.run_id for r in runs.get_run_records(limit=1)] == ["run-4"]
    group = runs.get_run_group("run-4")
    assert group is not None
    assert {run.run_id for run in group[1]} == {"run-2", "run-4"}


def test_tags(runs: SqlRunStorage) -> None:
    runs.add_run_tags("run-1", {"team": "green", "new": "1"})
    run = found(runs, "run-1")
    assert run is not None
    assert run.tags == {"team": "green", "new": "1"}
    assert set(runs.get_run_tag_keys()) >= {"team", "new"}
    assert dict(runs.get_run_tags(["team"])) == {"team": {"green", "blue"}}


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (DagsterEventType.PIPELINE_SUCCESS, DagsterRunStatus.SUCCESS),
        (DagsterEventType.PIPELINE_FAILURE, DagsterRunStatus.FAILURE),
        (DagsterEventType.PIPELINE_CANCELED, DagsterRunStatus.CANCELED),
    ],
)
def test_the_status_follows_the_events(
    instance: DagsterInstance, runs: SqlRunStorage, last: DagsterEventType, status: DagsterRunStatus
) -> None:
    happen(instance, DagsterEventType.PIPELINE_STARTING, 1)
    assert _status(runs) == DagsterRunStatus.STARTING
    happen(instance, DagsterEventType.PIPELINE_START, 2)
    assert _status(runs) == DagsterRunStatus.STARTED
    data = JobFailureData(None) if last is DagsterEventType.PIPELINE_FAILURE else None
    happen(instance, last, 3, data=data)
    record = runs.get_run_records(RunsFilter(run_ids=["run-1"]))[0]
    assert record.dagster_run.status == status
    assert (record.start_time, record.end_time) == pytest.approx((SINCE + 2, SINCE + 3), abs=1e-4)
    assert record.update_timestamp.timestamp() == pytest.approx(SINCE + 3, abs=1e-4)
    assert [run.run_id for run in runs.get_runs(RunsFilter(statuses=[status]))] == ["run-1"]


def test_the_reason_of_a_failure_is_a_tag(instance: DagsterInstance, runs: SqlRunStorage) -> None:
    data = JobFailureData(None, failure_reason=RunFailureReason.STEP_FAILURE)
    happen(instance, DagsterEventType.PIPELINE_FAILURE, 1, data=data)
    run = found(runs, "run-1")
    assert run is not None
    assert run.tags == {"team": "red", "dagster/failure_reason": "STEP_FAILURE"}
    tag = {"dagster/failure_reason": "STEP_FAILURE"}
    assert [run.run_id for run in runs.get_runs(RunsFilter(tags=tag))] == ["run-1"]


def test_snapshots(runs: SqlRunStorage) -> None:
    snapshot = lone.get_job_snapshot()
    plan = snapshot_from_execution_plan(_plan(), snapshot.snapshot_id)
    plan_id = create_execution_plan_snapshot_id(plan)
    assert not runs.has_job_snapshot(snapshot.snapshot_id)
    assert not runs.has_execution_plan_snapshot(plan_id)
    assert runs.add_job_snapshot(snapshot) == snapshot.snapshot_id
    assert runs.add_execution_plan_snapshot(plan) == plan_id
    assert runs.has_job_snapshot(snapshot.snapshot_id)
    assert runs.has_execution_plan_snapshot(plan_id)
    stored: JobSnap = runs.get_job_snapshot(snapshot.snapshot_id)
    assert stored.snapshot_id == snapshot.snapshot_id
    assert runs.get_execution_plan_snapshot(plan_id) == plan


def test_deleting(instance: DagsterInstance, runs: SqlRunStorage) -> None:
    happen(instance, DagsterEventType.PIPELINE_START, 1)
    instance.delete_run("run-1")
    assert not runs.has_run("run-1")
    assert found(runs, "run-1") is None
    assert instance.all_logs("run-1") == []
    runs.wipe()
    assert list(runs.get_runs()) == []


def test_heartbeats_of_daemons(runs: SqlRunStorage) -> None:
    beat = DaemonHeartbeat(SINCE, "SENSOR", "id", [])
    runs.add_daemon_heartbeat(beat)
    assert runs.get_daemon_heartbeats() == {"SENSOR": beat}
    runs.wipe_daemon_heartbeats()
    assert runs.get_daemon_heartbeats() == {}


def test_cursor_values(runs: SqlRunStorage) -> None:
    runs.set_cursor_values({"a": "1", "b": "2"})
    assert runs.get_cursor_values({"a", "b", "c"}) == {"a": "1", "b": "2"}


def test_it_says_what_it_is(runs: SqlRunStorage) -> None:
    assert runs.has_run_stats_index_cols()
    assert runs.has_backfill_id_column()
    assert runs.alembic_version() is not None
    runs.optimize_for_webserver(statement_timeout=5_000, pool_recycle=60, max_overflow=5)
    assert runs.has_run("run-1")


def found(runs: SqlRunStorage, run_id: str) -> DagsterRun | None:
    return next(iter(runs.get_runs(RunsFilter(run_ids=[run_id]))), None)


def _status(runs: SqlRunStorage) -> DagsterRunStatus:
    run = found(runs, "run-1")
    assert run is not None
    return run.status


def _plan() -> ExecutionPlan:
    from dagster._core.execution.api import create_execution_plan

    return create_execution_plan(lone)
