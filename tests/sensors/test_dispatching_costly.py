"""Deliveries that take long, or have to wait, hold nobody else up."""

import asyncio

import pytest

from dynamic_jobs.creating.many import Wanted
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.ticks import Ticks
from foundation.ids import RunId, TenantId, new_id
from graph_defs.expressions import ExpressionTooCostly, Scope
from tests.sensors.conftest import Site

pytestmark = pytest.mark.anyio


HEAVY = "${{ params.rows.all(x, params.rows.exists(y, y == x)) ? 'a' : 'b' }}"


async def test_a_concurrency_key_that_takes_long_holds_nobody_up(site: Site) -> None:
    rows = [*range(90), *["x" * 4_000] * 5]
    hook = await site.publish(
        {"params": {"rows": rows}}, params={"type": "object"}, concurrency={"key": HEAVY}
    )
    light = await site.publish(name="light", tenant=TenantId("other"))
    heavy, quick = await site.deliver(hook), await site.deliver(light)
    await site.dispatcher().dispatch()
    assert (await site.delivery(heavy))["verdict"] == "pending"
    assert (await site.delivery(quick))["verdict"] == "started"
    assert await site.dispatcher(costly=True).dispatch() == 1
    assert (await site.delivery(heavy))["verdict"] == "started"


async def test_params_that_take_long_to_check_hold_nobody_up(site: Site) -> None:
    numbers = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}}
    schema = {"type": "object", "properties": {"numbers": numbers}}
    hook = await site.publish({"params": "${{ trigger.body }}"}, params=schema)
    delivery = await site.deliver(hook, {"numbers": [1] * 20_000})
    await site.dispatcher().dispatch()
    assert (await site.delivery(delivery))["verdict"] == "pending"
    await site.dispatcher(costly=True).dispatch()
    assert (await site.delivery(delivery))["verdict"] == "started"


async def test_a_large_body_holds_nobody_up(site: Site) -> None:
    hook = await site.publish()
    delivery = await site.deliver(hook, "x" * 70_000)
    await site.dispatcher().dispatch()
    assert (await site.delivery(delivery))["verdict"] == "pending"
    await site.dispatcher(costly=True).dispatch()
    assert (await site.delivery(delivery))["verdict"] == "started"


async def test_a_large_graph_that_has_not_run_holds_nobody_up(site: Site) -> None:
    node = {"type": "data.transform", "with": {"value": 1}}
    hook = await site.publish(nodes={f"n{number}": node for number in range(300)})
    first = await site.deliver(hook)
    await site.dispatcher().dispatch()
    assert (await site.delivery(first))["verdict"] == "pending"
    await site.dispatcher(costly=True).dispatch()
    assert (await site.delivery(first))["verdict"] == "started"
    second = await site.deliver(hook)
    await site.dispatcher().dispatch()
    assert (await site.delivery(second))["verdict"] == "started", "by then it is compiled"


async def test_of_graphs_that_are_new_one_is_started_however_slow_all_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_jobs.creating.readying._QUICK_SECONDS", -1.0)
    for name in ("one", "two", "three"):
        await site.deliver(await site.publish(name=name))
    await site.dispatcher().dispatch()
    rows = await site.rows("SELECT verdict FROM graphwright.deliveries ORDER BY verdict")
    assert [row["verdict"] for row in rows] == ["pending", "pending", "started"]


async def test_many_expressions_together_have_an_end(site: Site) -> None:
    slow = "${{ trigger.body.all(x, trigger.body.exists(y, y == x + 1) || x < 0) }}"
    hook = await site.publish({"params": {f"p{n}": slow for n in range(3)}})
    delivery = await site.deliver(hook, list(range(90)))
    with pytest.raises(ExpressionTooCostly, match="all expressions together"):
        template = site.runtime.evaluator.compile({"a": slow, "b": slow})
        scope = Scope(params={}, nodes={}, run={}, trigger={"body": [1]})
        site.runtime.evaluator.evaluate(template, scope, within_seconds=-1)
    await site.dispatcher().dispatch()
    await site.dispatcher(costly=True).dispatch()
    assert (await site.delivery(delivery))["verdict"] == "rejected"


async def test_others_of_a_tenant_over_its_quota_wait_longer(site: Site) -> None:
    hook = await site.publish()
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE graphwright.tenants SET max_queued = 0")
    await site.deliver_many(hook, 400)
    assert await site.dispatcher().dispatch() == 256
    assert await site.dispatcher().dispatch() == 0
    rows = await site.rows(
        "SELECT count(*) AS n FROM graphwright.delivery_queue"
        " WHERE not_before > now() + interval '50 seconds'"
    )
    assert rows == [{"n": 144}]


async def test_two_that_limit_the_same_tenants_do_not_wait_for_each_other(site: Site) -> None:
    names = [TenantId("one"), TenantId("two")]
    graphs = {
        (tenant, slotted): await site.publish(
            name="slotted" if slotted else "plain",
            tenant=tenant,
            **({"concurrency": {"limit": 5}} if slotted else {}),
        )
        for tenant in names
        for slotted in (False, True)
    }
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE graphwright.tenants SET max_running = 5")

    async def make(slotted: TenantId, plain: TenantId) -> None:
        chosen = [graphs[slotted, True], graphs[plain, False]]
        wanted = [
            Wanted(each.tenant, each.graph_id, Trigger({}, {"type": "rest"}, "ann"))
            for each in chosen
        ]
        async with site.pool.connection() as connection, connection.transaction():
            made = await site.runs.create_many(connection, wanted, quickly=True)
        assert len(made.run_ids) == 2

    for _ in range(10):
        await asyncio.gather(make(names[0], names[1]), make(names[1], names[0]))


async def test_after_a_commit_in_doubt_a_new_tick_is_begun(site: Site) -> None:
    ticks, runs = Ticks(site.instigator), [RunId(new_id()) for _ in range(3)]
    async with site.pool.connection() as connection:
        ticks.keep(await ticks.record(connection, 1.0, 1.1, runs[:1]))
        await ticks.record(connection, 1.2, 1.3, runs[1:2])  # and nobody knows of its commit
        ticks.keep(await ticks.record(connection, 1.4, 1.5, runs[2:]))
    told = [run for tick in await site.ticks() for run in tick["run_ids"]]
    assert sorted(told) == sorted(runs)
