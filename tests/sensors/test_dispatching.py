"""Deliveries become runs: once, whatever happens, and their verdicts say what came of each."""

import asyncio
from typing import Any

import psycopg
import pytest

from foundation.ids import DeliveryId, TenantId
from foundation.tenant_pool import TenantPool
from graph_defs.trigger_store import TriggerStore
from sensors.dispatching import run_of
from tests.sensors.conftest import TENANT, Site

pytestmark = pytest.mark.anyio

PARAMS = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "who": {"type": "string"}},
    "additionalProperties": False,
}


async def test_a_delivery_becomes_a_run_with_params_from_it(site: Site) -> None:
    hook = await site.publish(
        {
            "filter": "${{ trigger.body.action == 'opened' }}",
            "params": {"n": "${{ trigger.body.number }}", "who": "${{ trigger.query.who }}"},
        },
        params=PARAMS,
    )
    wanted = await site.deliver(hook, {"action": "opened", "number": 7}, query='{"who": "ann"}')
    other = await site.deliver(hook, {"action": "closed", "number": 8})
    assert await site.dispatcher().dispatch() == 2
    told = await site.delivery(wanted)
    assert told["verdict"] == "started"
    assert told["run_id"] == run_of(wanted)
    assert told["decided_at"] is not None
    run = await site.row("SELECT * FROM graphwright.runs")
    assert run["params"] == {"n": 7, "who": "ann"}
    assert run["trigger"] == {
        "type": "webhook",
        "name": "hook",
        "trigger_id": hook.trigger_id,
        "delivery_id": wanted,
    }
    assert run["author"] == "webhook:hook"
    assert (await site.delivery(other))["verdict"] == "filtered"
    assert await site.rows("SELECT FROM graphwright.delivery_queue") == []
    assert await site.dispatcher().dispatch() == 0


async def test_the_whole_body_may_be_the_params(site: Site) -> None:
    hook = await site.publish({"params": "${{ trigger.body }}"}, params=PARAMS)
    await site.deliver(hook, {"n": 1})
    await site.dispatcher().dispatch()
    assert (await site.row("SELECT params FROM graphwright.runs"))["params"] == {"n": 1}


@pytest.mark.parametrize(
    ("trigger", "body", "reason"),
    [
        ({"filter": "${{ trigger.body.missing == 1 }}"}, {"a\0b": 1}, "a\ufffdb"),
        ({"filter": "${{ trigger.body.missing == 1 }}"}, {}, 'no key "missing"'),
        ({"filter": "${{ trigger.body.n }}"}, {"n": 1}, "neither true nor false"),
        ({"params": {"n": "${{ trigger.body.n }}"}}, {"n": "x"}, "/params/n"),
        ({"params": {"other": 1}}, {}, "other"),
        ({"params": "${{ trigger.body }}"}, [1], "no object"),
    ],
)
async def test_what_cannot_become_a_run_is_kept_with_its_reason(
    site: Site, trigger: dict[str, Any], body: object, reason: str
) -> None:
    hook = await site.publish(trigger, params=PARAMS)
    delivery = await site.deliver(hook, body)
    assert await site.dispatcher().dispatch() == 1
    told = await site.delivery(delivery)
    assert told["verdict"] == "rejected"
    assert reason in told["reason"]
    assert await site.rows("SELECT FROM graphwright.runs") == []


async def test_a_body_that_is_not_what_it_says_is_rejected(site: Site) -> None:
    delivery = await site.deliver(await site.publish(), b"{")
    await site.dispatcher().dispatch()
    told = await site.delivery(delivery)
    assert told["verdict"] == "rejected"
    assert "application/json" in told["reason"]


async def test_forms_and_texts_are_read(site: Site) -> None:
    both = "${{ trigger.body.a + trigger.body.b[1] }}"
    hook = await site.publish({"params": {"who": both}}, params=PARAMS)
    form = '{"content-type": "application/x-www-form-urlencoded"}'
    delivery = await site.deliver(hook, b"a=x&b=1&b=y%20z", headers=form)
    await site.dispatcher().dispatch()
    assert (await site.delivery(delivery))["reason"] is None
    assert (await site.row("SELECT params FROM graphwright.runs"))["params"] == {"who": "xy z"}


async def test_a_trigger_that_is_gone(site: Site) -> None:
    hook = await site.publish()
    delivery = await site.deliver(hook)
    async with site.pool.connection() as connection:
        await connection.execute("DELETE FROM graphwright.triggers")
    await site.dispatcher().dispatch()
    told = await site.delivery(delivery)
    assert told["verdict"] == "rejected"
    assert "no such trigger" in told["reason"]


async def test_while_the_sensor_is_off_deliveries_wait(site: Site) -> None:
    delivery = await site.deliver(await site.publish())
    async with site.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO instigators (selector_id, status) VALUES (%s, 'STOPPED')",
            (site.instigator.selector_id,),
        )
    assert await site.dispatcher().dispatch() == 0
    assert (await site.delivery(delivery))["verdict"] == "pending"
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE instigators SET status = 'RUNNING'")
    assert await site.dispatcher().dispatch() == 1
    assert (await site.delivery(delivery))["verdict"] == "started"


async def test_what_a_quota_keeps_back_is_tried_again_later(site: Site) -> None:
    hook = await site.publish()
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE graphwright.tenants SET max_queued = 1")
    first, second = await site.deliver(hook), await site.deliver(hook)
    assert await site.dispatcher().dispatch() == 2
    assert (await site.delivery(first))["verdict"] == "started"
    assert (await site.delivery(second))["verdict"] == "pending"
    assert await site.dispatcher().dispatch() == 0, "not at once"
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE graphwright.tenants SET max_queued = NULL")
        await connection.execute("UPDATE graphwright.delivery_queue SET not_before = now()")
    assert await site.dispatcher().dispatch() == 1
    assert (await site.delivery(second))["verdict"] == "started"


async def test_a_graph_that_takes_no_run_beside_another(site: Site) -> None:
    hook = await site.publish(concurrency={"limit": 1, "on_conflict": "reject"})
    first, second = await site.deliver(hook), await site.deliver(hook)
    await site.dispatcher().dispatch()
    assert (await site.delivery(first))["verdict"] == "started"
    assert (await site.delivery(second))["verdict"] == "rejected"


async def test_a_graph_in_which_the_newest_run_takes_the_place(site: Site) -> None:
    hook = await site.publish(concurrency={"limit": 1, "on_conflict": "cancel_running"})
    first, second = await site.deliver(hook), await site.deliver(hook)
    await site.dispatcher().dispatch()
    await site.runs.close()
    statuses = await site.rows("SELECT run_id::text, status FROM graphwright.runs")
    assert {row["run_id"]: row["status"] for row in statuses} == {
        run_of(first): "cancelled",
        run_of(second): "queued",
    }


async def test_the_version_that_is_published_now_is_run(site: Site) -> None:
    dispatcher = site.dispatcher()
    hook = await site.publish(params=PARAMS)
    await site.deliver(hook)
    await dispatcher.dispatch()
    hook = await site.publish({"params": {"extra": 1}}, params={"type": "object"})
    delivery = await site.deliver(hook)
    await dispatcher.dispatch()
    assert (await site.delivery(delivery))["verdict"] == "started"
    versions = await site.rows(
        "SELECT v.version FROM graphwright.runs JOIN graphwright.graph_versions v"
        " USING (graph_version_id) ORDER BY sort_id"
    )
    assert [row["version"] for row in versions] == [1, 2]


async def test_two_dispatchers_at_once_start_each_run_once(site: Site) -> None:
    hook = await site.publish()
    deliveries = await site.deliver_many(hook, 1_000)

    async def work() -> int:
        dispatcher, done = site.dispatcher(), 0
        while taken := await dispatcher.dispatch():
            done += taken
        return done

    # More than once is taken what a batch had no time for.
    assert sum(await asyncio.gather(work(), work(), work())) >= 1_000
    assert await site.rows("SELECT FROM graphwright.delivery_queue") == []
    rows = await site.rows("SELECT run_id::text FROM graphwright.runs")
    assert sorted(row["run_id"] for row in rows) == sorted(map(run_of, deliveries))


async def test_a_dispatcher_that_dies_before_its_commit_leaves_all_as_it_was(site: Site) -> None:
    hook = await site.publish()
    delivery = await site.deliver(hook)
    async with site.pool.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
        )
        await connection.execute(
            "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON job_ticks"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()"
        )
    with pytest.raises(psycopg.OperationalError):
        await site.dispatcher().dispatch()
    assert (await site.delivery(delivery))["verdict"] == "pending"
    assert await site.rows("SELECT FROM graphwright.runs") == []
    assert await site.ticks() == []
    async with site.pool.connection() as connection:
        await connection.execute("DROP TRIGGER dies ON job_ticks")
    assert await site.dispatcher().dispatch() == 1
    assert (await site.delivery(delivery))["verdict"] == "started"


async def test_one_that_cannot_be_stored_costs_only_itself(site: Site) -> None:
    hook = await site.publish()
    good, bad, last = [await site.deliver(hook, number) for number in range(3)]
    async with site.pool.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''no''; END'"
        )
        statement: Any = (
            "CREATE TRIGGER refuses BEFORE INSERT ON graphwright.run_queue FOR EACH ROW"
            f" WHEN (NEW.run_id = '{run_of(bad)}') EXECUTE FUNCTION refuse()"
        )
        await connection.execute(statement)
    assert await site.dispatcher().dispatch() == 3
    verdicts = [(await site.delivery(each))["verdict"] for each in (good, bad, last)]
    assert verdicts == ["started", "rejected", "started"]
    assert "internal" in (await site.delivery(bad))["reason"]


async def test_what_takes_long_holds_nobody_up(site: Site) -> None:
    heavy = "${{ trigger.body.all(x, trigger.body.exists(y, y == x)) }}"
    hook = await site.publish({"filter": heavy}, name="heavy")
    light = await site.publish(name="light")
    costly = await site.deliver(hook, list(range(90)) + ["x" * 4_000] * 5)
    quick = await site.deliver(light)
    assert await site.dispatcher().dispatch() == 2
    assert (await site.delivery(costly))["verdict"] == "pending"
    assert (await site.delivery(quick))["verdict"] == "started"
    assert await site.dispatcher().dispatch() == 0
    assert await site.dispatcher(costly=True).dispatch() == 1
    assert (await site.delivery(costly))["verdict"] == "started"


async def test_ticks_name_the_runs_that_they_started(site: Site) -> None:
    hook = await site.publish({"filter": "${{ trigger.body < 120 }}"})
    dispatcher = site.dispatcher()
    deliveries = [await site.deliver(hook, number) for number in range(122)]
    await dispatcher.dispatch()
    (tick,) = await site.ticks()
    assert tick["status"] == "SUCCESS"
    assert sorted(tick["run_ids"]) == sorted(map(run_of, deliveries[:120]))
    assert tick["end_timestamp"] >= tick["timestamp"]
    tags = await site.rows(
        "SELECT count(*) AS n FROM run_tags"
        " WHERE key = 'dagster/sensor_name' AND value = 'webhook_sensor'"
    )
    assert tags == [{"n": 120}]
    await site.deliver(hook, 500)
    await dispatcher.dispatch()
    skipped = (await site.ticks())[-1]
    assert skipped["status"] == "SKIPPED"
    assert skipped["skip_reason"].startswith("1 started no run")


async def test_one_tick_stands_for_all_that_happens_in_a_second(site: Site) -> None:
    hook, dispatcher = await site.publish(), site.dispatcher()
    deliveries: list[DeliveryId] = []
    for _ in range(8):
        deliveries.append(await site.deliver(hook))
        await dispatcher.dispatch()
    ticks = await site.ticks()
    assert len(ticks) < 8
    assert [run for tick in ticks for run in tick["run_ids"]] == [run_of(d) for d in deliveries]


async def test_tenants_do_not_meet(site: Site) -> None:
    ours = await site.publish()
    theirs = await site.publish(tenant=TenantId("other"))
    await site.deliver(ours, 1)
    await site.deliver(theirs, 2)
    await site.dispatcher().dispatch()
    rows = await site.rows("SELECT tenant, graph_id::text FROM graphwright.runs ORDER BY tenant")
    assert [(row["tenant"], row["graph_id"]) for row in rows] == [
        (TENANT, ours.graph_id),
        ("other", theirs.graph_id),
    ]


async def test_a_webhook_keeps_its_address_and_its_switch(site: Site) -> None:
    store = TriggerStore(TenantPool(site.pool))
    first = await site.publish()
    assert first.address is not None
    assert len(first.address) == 32
    await store.set_enabled(TENANT, first.trigger_id, enabled=False)
    again = await site.publish({"filter": "${{ true }}"})
    assert (again.trigger_id, again.address, again.enabled) == (
        first.trigger_id,
        first.address,
        False,
    )
    await site.publish(triggers={"other": {"type": "webhook", "scheme": "none"}})
    rows = await site.rows("SELECT address FROM graphwright.webhook_addresses")
    assert len(rows) == 1
    assert rows[0]["address"] != first.address
