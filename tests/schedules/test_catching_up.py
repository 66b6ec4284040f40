"""Timers that are behind: none is lost that should not be, and they delay nobody else."""

import re
from datetime import timedelta

import pytest
from dagster import DagsterInstance

from graph_defs.recurrence import due_text
from graph_defs.trigger_store import StoredTrigger
from schedules.statements import CLAIM_BEHIND
from tests.dynamic_jobs.conftest import TENANT
from tests.schedules.conftest import SCHEDULE, Timers, at
from tests.schedules.test_dispatching_at_once import explained

NOW = at("2030-01-03")
SECOND = timedelta(seconds=1)

COPIES = """
INSERT INTO graphwright.triggers (tenant, trigger_id, graph_id, name, type, config)
SELECT tenant, md5('trigger' || n)::uuid, graph_id, 'timer' || n, 'timer', config
FROM graphwright.triggers, generate_series(1, %(count)s) n WHERE trigger_id = %(trigger_id)s
"""
TIMERS_OF_COPIES = """
INSERT INTO graphwright.timers (trigger_id, tenant, due_at, fire_at, lane)
SELECT md5('trigger' || n)::uuid, tenant, due_at, fire_at, lane
FROM graphwright.timers, generate_series(1, %(count)s) n WHERE trigger_id = %(trigger_id)s
"""
OF_OTHERS = """
INSERT INTO graphwright.timers (trigger_id, tenant, due_at, fire_at, lane)
SELECT md5('other' || n)::uuid, 'tenant-' || n %% %(tenants)s, %(at)s, %(at)s, 'behind'
FROM generate_series(1, %(count)s) n
"""


def copy(timers: Timers, trigger: StoredTrigger, count: int) -> None:
    values = {"count": count, "trigger_id": trigger.trigger_id}
    timers.bench.connection.execute(COPIES, values)
    timers.bench.connection.execute(TIMERS_OF_COPIES, values)


def lanes(timers: Timers) -> set[str]:
    rows = timers.bench.connection.execute("SELECT DISTINCT lane FROM graphwright.timers")
    return {row["lane"] for row in rows}


@pytest.mark.parametrize("catch_up", ["latest", "all"])
def test_who_catches_up_delays_nobody_who_is_on_time(timers: Timers, catch_up: str) -> None:
    behind = {"every": "1m", "catch_up": catch_up}
    copy(timers, timers.publish(behind, at("2030-01-01"), name="behind"), 30)
    timers.publish({"every": "1d"}, NOW, name="on-time")

    timers.dispatch(NOW)

    assert timers.fired() == [due_text(NOW)]


def test_catching_up_takes_turns_until_the_timer_is_on_time_again(timers: Timers) -> None:
    trigger = timers.publish({"every": "1m", "catch_up": "all"}, NOW)
    now = NOW + timedelta(minutes=25, seconds=30)

    timers.dispatch(now)
    assert timers.row(trigger) == {"due_at": NOW, "fire_at": NOW, "lane": "behind"}

    assert timers.dispatch(now, lane="behind") == 1
    due_at = NOW + timedelta(minutes=20)
    assert timers.row(trigger) == {"due_at": due_at, "fire_at": now, "lane": "behind"}

    assert timers.dispatch(now, lane="behind") == 1
    due_at = NOW + timedelta(minutes=26)
    assert timers.row(trigger) == {"due_at": due_at, "fire_at": due_at, "lane": "quick"}
    assert timers.fired() == [due_text(NOW + timedelta(minutes=n)) for n in range(26)]


def test_among_those_that_catch_up_tenants_take_turns(timers: Timers) -> None:
    copy(timers, timers.publish({"every": "1m", "catch_up": "all"}, at("2030-01-01")), 300)
    timers.dispatch(NOW)
    timers.dispatch(NOW)
    assert lanes(timers) == {"behind"}
    connection = timers.bench.connection
    connection.execute(OF_OTHERS, {"count": 3, "tenants": 3, "at": NOW})

    assert timers.dispatch(NOW, lane="behind") > 3

    others = connection.execute("SELECT FROM graphwright.timers WHERE tenant <> %s", (TENANT,))
    assert others.rowcount == 0  # their triggers are gone, so that they have ended
    assert len(timers.fired()) > 100  # the room that they left was used


@pytest.mark.parametrize("tenants", [1, 5_000])
def test_of_100_000_timers_behind_a_claim_reads_a_few_of_each_tenant(
    timers: Timers, tenants: int
) -> None:
    connection = timers.bench.connection
    connection.execute(OF_OTHERS, {"count": 100_000, "tenants": tenants, "at": NOW})
    connection.execute("ANALYZE graphwright.timers")
    values = {"lane": "behind", "now": NOW, "slices": SCHEDULE.slices, "limit": 64}

    plan = explained(connection, CLAIM_BEHIND, values)

    assert "using timers_behind on timers w" in plan
    assert "Seq Scan on timers" not in plan
    assert all(int(rows) < 2 for rows in re.findall(r"Rows Removed by \w+: (\d+)", plan))


def test_a_stall_of_seconds_loses_none_of_a_timer_that_does_not_catch_up(timers: Timers) -> None:
    timers.publish({"every": "10s"}, NOW)
    timers.dispatch(NOW + timedelta(seconds=45))
    assert timers.fired() == [due_text(NOW + timedelta(seconds=each)) for each in range(0, 41, 10)]


def test_more_than_a_minute_late_they_are_left_out_and_the_tick_says_so(timers: Timers) -> None:
    timers.publish({"every": "10s"}, NOW, name="frequent")
    timers.publish({"every": "1d"}, NOW, name="rare")
    now = NOW + timedelta(seconds=85)

    assert timers.dispatch(now) == 2

    assert timers.fired() == [due_text(NOW + timedelta(seconds=each)) for each in range(30, 81, 10)]
    with DagsterInstance.get() as instance:
        (tick,) = instance.get_ticks(SCHEDULE.origin_id, SCHEDULE.selector_id)
    assert len(tick.run_ids) == 6


def test_each_second_of_a_minute_starts_its_run_in_few_turns(timers: Timers) -> None:
    trigger = timers.publish({"every": "1s"}, NOW)
    now = NOW + timedelta(seconds=60)

    timers.dispatch(now)
    row = timers.row(trigger)
    assert row is not None
    assert row["lane"] == "behind"
    for turn in range(1, 4):
        assert timers.dispatch(now + turn * SECOND, lane="behind") == 1

    assert lanes(timers) == {"quick"}
    assert timers.fired() == [due_text(NOW + each * SECOND) for each in range(64)]


def test_what_jitter_had_delayed_is_not_missed_before_its_time(timers: Timers) -> None:
    trigger = timers.publish({"every": "5m", "jitter": "4m"}, NOW)
    timers.set_next(trigger, NOW - SECOND)
    row = timers.row(trigger)
    assert row is not None
    missed_at = row["fire_at"] + timedelta(seconds=60)
    assert missed_at < NOW + timedelta(minutes=5)  # this trigger's share of the jitter

    timers.dispatch(missed_at)

    assert timers.fired() == [due_text(NOW)]
