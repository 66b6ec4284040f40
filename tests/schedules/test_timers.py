"""What a timer's owner asks of it."""

from dataclasses import replace

import pytest

from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.creating.trigger import Trigger
from foundation.database import AsyncPool
from foundation.errors import Conflict
from foundation.tenant_pool import TenantPool
from schedules.firing import NoParams
from schedules.timers import fire_now, upcoming
from tests.schedules.conftest import TENANT, Timers, at

NOW = at("2030-01-31T12:00:00.5")
PARAMS = {"day": "${{ trigger.due_at }}", "by_hand": "${{ trigger.manual }}"}


def test_the_next_due_times(timers: Timers) -> None:
    daily = {"cron": "0 3 * * *", "not_after": "2030-02-02T03:00:00Z"}
    trigger = timers.publish(daily, NOW)
    assert upcoming(trigger, NOW, 1) == [at("2030-02-01T03:00")]
    assert upcoming(trigger, NOW, 10) == [at("2030-02-01T03:00"), at("2030-02-02T03:00")]
    assert upcoming(replace(trigger, enabled=False), NOW, 1) == [at("2030-02-01T03:00")]


def test_fired_by_hand_a_timer_starts_a_run_and_keeps_its_due_time(timers: Timers) -> None:
    due_at = at("2030-02-01T03:00")
    trigger = timers.publish({"cron": "0 3 * * *", "params": PARAMS}, due_at)
    bench = timers.bench

    async def fire(pool: AsyncPool) -> None:
        creator = RunCreator(pool, TenantPool(pool), bench.storage, timers.compiler, bench.runtime)
        for _ in range(2):
            asked = await fire_now(trigger, NOW, bench.runtime.evaluator)
            await creator.start(TENANT, trigger.graph_id, asked)

    bench.with_pool(fire)

    runs = timers.runs()
    assert [run["params"] for run in runs] == [{"day": "2030-01-31T12:00:00Z", "by_hand": True}] * 2
    assert runs[0]["trigger"] == {
        "type": "timer",
        "name": "nightly",
        "trigger_id": trigger.trigger_id,
        "due_at": "2030-01-31T12:00:00Z",
        "manual": True,
    }
    assert runs[0]["author"] == "timer:nightly"
    assert timers.trigger(trigger).next_due_at == due_at


def test_params_that_fail_are_told_to_who_fires(timers: Timers) -> None:
    broken = {"cron": "0 3 * * *", "params": {"n": "${{ 1 / 0 }}"}}
    trigger = timers.publish(broken, NOW)

    async def fire(_: AsyncPool) -> Trigger:
        return await fire_now(trigger, NOW, timers.bench.runtime.evaluator)

    with pytest.raises(NoParams, match="1 / 0"):
        timers.bench.with_pool(fire)


def test_only_timers_have_due_times(timers: Timers) -> None:
    webhook = replace(timers.publish({"every": "1d"}, NOW), type="webhook")
    with pytest.raises(Conflict, match="no timer"):
        upcoming(webhook, NOW, 1)
