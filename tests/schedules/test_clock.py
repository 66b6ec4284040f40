"""The clock: changes of it, leap days, downtime, restarts in the second that a run is due."""

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from graph_defs.recurrence import due_text
from graph_defs.trigger_store import StoredTrigger
from tests.schedules.conftest import Timers, at

BERLIN = ZoneInfo("Europe/Berlin")
WEEK = timedelta(days=7)
SECOND = timedelta(seconds=1)


def run_until(timers: Timers, trigger: StoredTrigger, end: datetime) -> list[datetime]:
    """Dispatch at each moment that something is due, and when nothing is; when runs started."""
    fired: list[datetime] = []
    while (row := timers.row(trigger)) is not None and row["fire_at"] < end:
        assert timers.dispatch(row["fire_at"] - timedelta(milliseconds=1)) == 0
        assert timers.dispatch(row["fire_at"]) == 1
        fired.append(row["fire_at"])
    return fired


def written(instants: list[datetime]) -> list[str]:
    local = [each.astimezone(BERLIN) for each in instants]
    return [f"{each:%d. %H:%M}{'b' * each.fold}" for each in local]


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        ("30 2 * * *", "2025-03-28T03:00+01:00", ["29. 02:30", "30. 03:00", "31. 02:30"]),
        ("30 2 * * *", "2025-10-24T03:00+02:00", ["25. 02:30", "26. 02:30", "27. 02:30"]),
        ("0 */2 30 3 *", "2025-03-30T00:00+01:00", ["30. 00:00", "30. 04:00", "30. 06:00"]),
        ("30 * 26 10 *", "2025-10-26T02:00+02:00", ["26. 02:30", "26. 02:30b", "26. 03:30"]),
        ("0 12 29 2 *", "2027-03-01T00:00+01:00", ["29. 12:00"]),
    ],
)
def test_each_due_time_has_one_run(
    timers: Timers, cron: str, start: str, expected: list[str]
) -> None:
    due_at = at(start)
    trigger = timers.publish({"cron": cron, "timezone": "Europe/Berlin"}, due_at)
    timers.set_next(trigger, due_at - SECOND)

    fired: list[datetime] = []
    while len(fired) < len(expected):
        row = timers.row(trigger)
        assert row is not None
        fired += run_until(timers, trigger, row["fire_at"] + SECOND)

    assert written(fired) == expected
    assert timers.fired() == [due_text(each) for each in fired]
    assert all(before < after for before, after in pairwise(fired))


@pytest.mark.parametrize(
    ("catch_up", "late", "expected"),
    [
        ("none", WEEK + timedelta(minutes=30), []),
        ("none", WEEK + timedelta(seconds=60), ["2030-01-08T00:00:00Z"]),
        ("latest", WEEK + timedelta(minutes=30), ["2030-01-08T00:00:00Z"]),
        (
            "all",
            WEEK + timedelta(minutes=30),
            [due_text(at("2030-01-01") + timedelta(hours=hour)) for hour in range(7 * 24 + 1)],
        ),
    ],
)
def test_a_week_of_downtime(
    timers: Timers, catch_up: str, late: timedelta, expected: list[str]
) -> None:
    due_at = at("2030-01-01")
    trigger = timers.publish({"every": "1h", "catch_up": catch_up}, due_at)
    now = due_at + late

    timers.drain(now)

    assert timers.fired() == expected
    ids = [run["trigger"]["due_at"] for run in timers.runs()]
    assert ids == sorted(ids)  # in the order in which they were due
    row = timers.row(trigger)
    assert row is not None
    assert row["due_at"] == row["fire_at"] == at("2030-01-08T01:00")


def test_jitter_delays_the_run_and_not_the_due_time(timers: Timers) -> None:
    due_at = at("2030-01-01")
    trigger = timers.publish({"cron": "0 0 * * *", "jitter": "10m"}, due_at)
    timers.set(trigger, due_at, due_at + timedelta(minutes=9))

    assert timers.dispatch(due_at + timedelta(minutes=8)) == 0
    assert timers.dispatch(due_at + timedelta(minutes=9, seconds=59)) == 1

    assert timers.fired() == ["2030-01-01T00:00:00Z"]  # and not missed
    row = timers.row(trigger)
    assert row is not None
    assert row["due_at"] == at("2030-01-02")
    assert timedelta() < row["fire_at"] - row["due_at"] < timedelta(minutes=10)


def test_what_jitter_still_holds_back_is_not_taken_for_the_newest(timers: Timers) -> None:
    due_at = at("2030-01-01")
    trigger = timers.publish({"every": "1h", "jitter": "59m", "catch_up": "latest"}, due_at)
    now = at("2030-01-01T05:00")  # 05:00 itself has its jitter before it

    timers.drain(now)

    assert timers.fired() == ["2030-01-01T04:00:00Z"]
    row = timers.row(trigger)
    assert row is not None
    assert row["due_at"] == now < row["fire_at"]


def test_after_the_last_due_time_the_timer_is_gone(timers: Timers) -> None:
    due_at = at("2030-01-01")
    trigger = timers.publish({"every": "1d", "not_after": "2030-01-02T00:00:00Z"}, due_at)

    assert timers.dispatch(due_at) == 1
    assert timers.dispatch(at("2030-01-02")) == 1

    assert timers.row(trigger) is None
    assert timers.trigger(trigger).next_due_at is None
    assert timers.fired() == ["2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z"]


def test_a_dispatcher_that_comes_in_the_second_of_a_run_starts_it(timers: Timers) -> None:
    due_at = at("2030-01-01")
    timers.publish({"every": "1d"}, due_at)
    for late in (timedelta(), timedelta(milliseconds=1), SECOND):  # each a process of its own
        timers.dispatch(due_at + late)
    assert timers.fired() == ["2030-01-01T00:00:00Z"]
