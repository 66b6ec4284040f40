"""The timer schedule and its job, in the stock Dagster webserver."""

import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultScheduleStatus,
    build_schedule_context,
)

from schedules.timer_schedule import TIMER_SCHEDULE, dispatch_timers, timer_schedule
from tests.dynamic_jobs.test_dagster_ui import LAUNCH, Web, dagster_ui
from tests.schedules.conftest import Timers
from tests.services import free_port

TERMINAL = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


def test_the_schedule_dispatches_and_asks_for_no_run() -> None:
    waiting = [3, 0]

    def dispatch() -> int:
        return waiting.pop(0)

    schedule = timer_schedule(TIMER_SCHEDULE, dispatch_timers(dispatch), dispatch)
    ticks = [schedule.evaluate_tick(build_schedule_context()) for _ in range(2)]

    assert [tick.run_requests for tick in ticks] == [[], []]
    assert "3 that the dispatcher had not come to" in (ticks[0].skip_message or "")
    assert "Nothing is due" in (ticks[1].skip_message or "")
    assert schedule.default_status == DefaultScheduleStatus.RUNNING
    assert schedule.job_name == "dispatch_timers"


@pytest.fixture
def web(timers: Timers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Web]:
    bench, port = timers.bench, free_port()
    monkeypatch.setenv("GRAPHWRIGHT_CODE_PORT", str(port))
    bench.settings = bench.settings.model_copy(update={"code_port": port})
    with dagster_ui(port, tmp_path) as found:
        yield found


@pytest.mark.xdist_group("dagster ui")
def test_the_job_launched_by_hand_dispatches(timers: Timers, web: Web) -> None:
    now = datetime.now(UTC)
    # Dagster may take longer to launch it than a due time may be late.
    timers.publish({"every": "366d", "catch_up": "latest"}, now - timedelta(seconds=1))

    launched = web.ask(LAUNCH, job="dispatch_timers", config={})["launchRun"]

    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    deadline = time.monotonic() + 60
    with DagsterInstance.get() as instance:
        while (run := instance.get_run_by_id(run_id)) is None or run.status not in TERMINAL:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert run.status == DagsterRunStatus.SUCCESS
    assert len(timers.fired()) == 1
