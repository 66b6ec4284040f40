"""Timers become runs: once for each due time, whatever fails."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorType, TickStatus

from dynamic_jobs.creating.refusals import NotYet
from dynamic_jobs.ticks import Instigator
from foundation.database import AsyncPool
from foundation.errors import QuotaExceeded
from foundation.ids import RunId
from foundation.tenant_pool import TenantPool
from graph_defs.recurrence import due_text
from graph_defs.trigger_store import StoredTrigger, TriggerStore
from schedules.batch import Batch, Due
from schedules.dispatching import TimerDispatcher
from schedules.firing import Firing, run_of
from tests.schedules.conftest import SCHEDULE, TENANT, Timers, at

DUE = at("2030-01-31T03:00")
DAILY = {"cron": "0 3 * * *"}
NUMBERS = ", ".join(str(number) for number in range(60))
COSTLY = f"${{{{ {{'n': [{NUMBERS}].map(a, [{NUMBERS}].map(b, a * b)).size()}} }}}}"


def test_a_due_timer_starts_a_run_and_is_due_again(timers: Timers) -> None:
    params = {"day": "${{ trigger.due_at }}"}
    trigger = timers.publish({**DAILY, "params": params}, DUE)

    assert timers.dispatch(DUE - timedelta(milliseconds=1)) == 0
    assert timers.dispatch(DUE) == 1
    assert timers.dispatch(DUE) == 0

    (run,) = timers.runs()
    assert run["params"] == {"day": "2030-01-31T03:00:00Z"}
    assert run["author"] == "timer:nightly"
    assert str(run["run_id"]) == run_of(trigger.trigger_id, DUE)
    assert run["trigger"] == {
        "type": "timer",
        "name": "nightly",
        "trigger_id": trigger.trigger_id,
        "due_at": "2030-01-31T03:00:00Z",
    }
    row = timers.row(trigger)
    assert row is not None
    assert row["due_at"] == row["fire_at"] == at("2030-02-01T03:00")


def test_the_tick_names_the_runs(timers: Timers) -> None:
    timers.publish(DAILY, DUE)
    timers.dispatch(DUE)
    (run,) = timers.runs()

    with DagsterInstance.get() as instance:
        (tick,) = instance.get_ticks(SCHEDULE.origin_id, SCHEDULE.selector_id)
        assert tick.status == TickStatus.SUCCESS
        assert tick.run_ids == [str(run["run_id"])]
        assert tick.timestamp == DUE.timestamp()
        stored = instance.get_run_by_id(str(run["run_id"]))
    assert stored is not None
    assert stored.tags["dagster/schedule_name"] == "timer_schedule"


def test_switched_off_timers_wait(timers: Timers) -> None:
    timers.publish(DAILY, DUE)
    connection = timers.bench.connection
    connection.execute(
        "INSERT INTO instigators (selector_id, status) VALUES (%s, 'STOPPED')",
        (SCHEDULE.selector_id,),
    )
    assert timers.dispatch(DUE) == 0
    connection.execute("UPDATE instigators SET status = 'RUNNING'")
    assert timers.dispatch(DUE) == 1


def test_a_shard_has_its_own_tenants_timers(timers: Timers) -> None:
    timers.publish(DAILY, DUE)
    slot = timers.bench.connection.execute("SELECT slice FROM graphwright.timers").fetchone()
    assert slot is not None
    shards = [
        Instigator.of("timer_schedule", InstigatorType.SCHEDULE, ("127.0.0.1", 4000), shard, 2)
        for shard in range(2)
    ]

    async def work(pool: AsyncPool) -> list[int]:
        evaluator = timers.bench.runtime.evaluator
        dispatchers = [
            TimerDispatcher(pool, timers.many(pool), evaluator, shard) for shard in shards
        ]
        return [await dispatcher.dispatch(DUE) for dispatcher in dispatchers]

    found = timers.bench.with_pool(work)
    assert found == ([1, 0] if slot["slice"] % 2 == 0 else [0, 1])


def test_params_that_fail_cost_the_due_time_and_the_owner_is_told(timers: Timers) -> None:
    trigger = timers.publish({**DAILY, "params": {"a": "${{ trigger.due_at + 1 }}"}}, DUE)

    assert timers.dispatch(DUE) == 1

    assert timers.fired() == []
    told = timers.trigger(trigger)
    assert told.last_fault is not None
    assert told.last_fault.startswith("2030-01-31T03:00:00Z: ")
    assert "trigger.due_at + 1" in told.last_fault
    assert told.last_fault_at == DUE
    assert told.next_due_at == at("2030-02-01T03:00")
    with DagsterInstance.get() as instance:
        (tick,) = instance.get_ticks(SCHEDULE.origin_id, SCHEDULE.selector_id)
    assert tick.status == TickStatus.SKIPPED
    assert tick.skip_reason is not None
    assert "trigger.due_at + 1" in tick.skip_reason


@pytest.mark.parametrize(
    ("params", "words"),
    [({"n": 1}, "/params/n"), ("${{ trigger.name }}", "a string, and no object")],
)
def test_params_that_do_not_fit_cost_only_their_own_timer(
    timers: Timers, params: Any, words: str
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "string"}}}
    bad = timers.publish({**DAILY, "params": params}, DUE, params=schema, name="bad")
    timers.publish(DAILY, DUE, name="good")

    assert timers.dispatch(DUE) == 2

    assert len(timers.fired()) == 1
    assert words in (timers.trigger(bad).last_fault or "")


def test_a_graph_that_refuses_more_runs_refuses_a_timers_too(timers: Timers) -> None:
    concurrency = {"limit": 1, "on_conflict": "reject"}
    trigger = timers.publish(DAILY, DUE, concurrency=concurrency)
    timers.dispatch(DUE)
    timers.dispatch(DUE + timedelta(days=1))
    assert timers.fired() == ["2030-01-31T03:00:00Z"]
    assert "`concurrency`" in (timers.trigger(trigger).last_fault or "")


@pytest.mark.parametrize("catch_up", ["none", "latest", "all"])
def test_a_quota_delays_a_run_and_loses_none(timers: Timers, catch_up: str) -> None:
    trigger = timers.publish({**DAILY, "catch_up": catch_up}, DUE)
    connection = timers.bench.connection
    connection.execute("UPDATE graphwright.tenants SET max_queued = 0")

    now = DUE
    assert timers.dispatch(now) == 1
    for _ in range(10):  # longer than it takes to be missed
        now += timedelta(seconds=10)
        assert timers.row(trigger) == {"due_at": DUE, "fire_at": now, "lane": "behind"}
        assert timers.dispatch(now, lane="behind") == 1
    assert timers.fired() == []
    assert timers.trigger(trigger).last_fault is None

    connection.execute("UPDATE graphwright.tenants SET max_queued = NULL")
    now += timedelta(seconds=10)
    assert timers.dispatch(now, lane="behind") == 1
    assert timers.fired() == ["2030-01-31T03:00:00Z"]
    assert timers.row(trigger) == {
        "due_at": DUE + timedelta(days=1),
        "fire_at": DUE + timedelta(days=1),
        "lane": "quick",
    }


def test_a_quota_in_the_midst_of_catching_up(timers: Timers) -> None:
    trigger = timers.publish({"every": "1d", "catch_up": "all"}, at("2030-01-01"))
    connection = timers.bench.connection
    connection.execute("UPDATE graphwright.tenants SET max_queued = 3")

    now = at("2030-01-07T12:00")
    timers.drain(now)
    assert len(timers.fired()) == 3
    row = timers.row(trigger)
    assert row is not None
    assert row["due_at"] == at("2030-01-04")

    connection.execute("UPDATE graphwright.tenants SET max_queued = NULL")
    timers.drain(now + timedelta(seconds=10))
    assert timers.fired() == [f"2030-01-0{day}T00:00:00Z" for day in range(1, 8)]


def test_a_run_that_is_there_already_stops_nobody(timers: Timers) -> None:
    """A timer that was set by a clock behind ours comes due a second time."""
    early = timers.publish(DAILY, DUE, name="early")
    timers.dispatch(DUE)
    timers.set(early, DUE, DUE)
    other = timers.publish(DAILY, DUE, name="other")

    assert timers.dispatch(DUE) == 2

    assert timers.fired() == [due_text(DUE)] * 2
    assert {str(run["run_id"]) for run in timers.runs()} == {
        run_of(each.trigger_id, DUE) for each in (early, other)
    }
    assert timers.trigger(early).last_fault is None
    assert timers.trigger(early).next_due_at == at("2030-02-01T03:00")


def test_costly_params_wait_for_a_dispatcher_of_their_own(timers: Timers) -> None:
    trigger = timers.publish({**DAILY, "params": COSTLY}, DUE)

    assert timers.dispatch(DUE) == 1
    assert timers.dispatch(DUE) == 0
    row = timers.row(trigger)
    assert row == {"due_at": DUE, "fire_at": DUE, "lane": "costly"}

    assert timers.dispatch(DUE, lane="costly") == 1
    (run,) = timers.runs()
    assert run["params"] == {"n": 60}
    row = timers.row(trigger)
    assert row is not None
    assert row["due_at"] == at("2030-02-01T03:00")


def test_a_run_that_takes_long_to_make_waits_for_a_dispatcher_of_its_own(timers: Timers) -> None:
    key = f"${{{{ string([{NUMBERS}].map(a, [{NUMBERS}].map(b, a * b)).size()) }}}}"
    concurrency = {"limit": 5, "key": key}
    trigger = timers.publish(DAILY, DUE, concurrency=concurrency)

    assert timers.dispatch(DUE) == 1
    assert timers.row(trigger) == {"due_at": DUE, "fire_at": DUE, "lane": "costly"}
    assert timers.fired() == []

    assert timers.dispatch(DUE, lane="costly") == 1
    assert timers.fired() == [due_text(DUE)]


def test_a_run_for_which_a_batch_had_no_time_is_made_in_the_next(timers: Timers) -> None:
    batch, due = decided(timers, {"every": "1d", "catch_up": "all"})
    batch.learn([RunId("made"), NotYet("others take their time"), NotYet("others, too")])
    (row,) = batch.moved()
    assert (row["due_at"], row["fire_at"], row["lane"]) == (at("2030-01-02"), due, "behind")
    assert batch.others()[0] == 0


def test_due_times_that_are_left_out_count_also_where_others_start_runs(timers: Timers) -> None:
    batch, _ = decided(timers, {"every": "30s"})
    assert len(batch.wanted) == 3
    assert batch.others() == (1, "they were late, and `catch_up` leaves due times out")


def test_the_first_of_two_due_times_that_wait_is_next(timers: Timers) -> None:
    batch, now = decided(timers, {"every": "1d", "catch_up": "all"})
    (due,) = batch.handled
    due.hand_over(at("2030-01-03"), "costly")
    batch.learn([RunId("made"), QuotaExceeded("full"), QuotaExceeded("full")])
    (row,) = batch.moved()
    again = now + timedelta(seconds=10)
    assert (row["due_at"], row["fire_at"], row["lane"]) == (at("2030-01-02"), again, "costly")


def decided(timers: Timers, trigger: dict[str, Any]) -> tuple[Batch, datetime]:
    """A batch of one timer that has been behind since three due times, and when it is."""
    now, start = at("2030-01-03T12:00"), at("2030-01-01")
    stored = timers.publish(trigger, start)
    row = {
        "tenant": TENANT,
        "trigger_id": stored.trigger_id,
        "graph_id": stored.graph_id,
        "name": stored.name,
        "config": json.dumps(stored.config),
        "due_at": start,
        "fire_at": start,
    }
    batch, firing = Batch(now), Firing(timers.bench.runtime.evaluator)
    asyncio.run(batch.decide([Due.of(row, "behind")], firing, {}, room=256, each=20))
    return batch, now


def test_a_timer_whose_trigger_is_gone_goes_too(timers: Timers) -> None:
    trigger = timers.publish(DAILY, DUE)
    timers.bench.connection.execute("DELETE FROM graphwright.triggers")
    assert timers.dispatch(DUE) == 1
    assert timers.row(trigger) is None
    assert timers.fired() == []


def test_a_timer_that_this_release_cannot_read_waits_for_one_that_can(timers: Timers) -> None:
    trigger = timers.publish(DAILY, DUE)
    timers.configure(trigger, timezone="Europe/Atlantis")
    assert timers.dispatch(DUE) == 1
    again = DUE + timedelta(seconds=60)
    assert timers.row(trigger) == {"due_at": DUE, "fire_at": again, "lane": "quick"}
    assert "Europe/Atlantis" in (timers.trigger(trigger).last_fault or "")

    timers.configure(trigger)
    assert timers.dispatch(again) == 1
    assert timers.fired() == [due_text(DUE)]


def test_disabled_timers_are_not_due(timers: Timers) -> None:
    trigger = timers.publish(DAILY, DUE)

    def enable(enabled: bool) -> StoredTrigger:
        async def work(pool: AsyncPool) -> StoredTrigger:
            store = TriggerStore(TenantPool(pool))
            return await store.set_enabled(TENANT, trigger.trigger_id, enabled=enabled)

        return timers.bench.with_pool(work)

    assert enable(False).next_due_at is None
    assert timers.dispatch(DUE) == 0
    assert enable(True).next_due_at is not None
