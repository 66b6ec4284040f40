"""Dispatchers of notices: at once, cut off, held up, and of other tenants."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from dagster._core.scheduler.instigation import InstigatorType

from dynamic_jobs.retention.pruning import prune
from dynamic_jobs.ticks import Instigator
from foundation.ids import TenantId
from sensors.definitions import NOTIFY_SENSOR
from sensors.notice_statements import CLAIM, CLAIM_CALLS
from sensors.notices import notice_id
from tests.sensors.conftest import TENANT, Site
from tests.sensors.noticing import REPAIR, Noticing, noticing
from tests.sensors.test_notices import PARAMS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def notified(site: Site) -> AsyncGenerator[Noticing]:
    async with noticing(site) as opened:
        yield opened


async def test_dispatchers_at_once_start_each_run_once(notified: Noticing) -> None:
    await notified.publish(name="repair")
    graph_id = await notified.publish({"fix": REPAIR, "too": REPAIR})
    for _ in range(48):  # with two notices each, more than fit into a batch
        await notified.end(await notified.start(graph_id), "failed")

    async def work() -> int:
        dispatcher, done = notified.dispatcher(), 0
        while taken := await dispatcher.dispatch():
            done += taken
        return done

    assert sum(await asyncio.gather(work(), work(), work())) == 96
    notices = await notified.notices()
    assert {(row["status"], row["attempts"]) for row in notices} == {("delivered", 1)}
    rows = await notified.site.rows("SELECT FROM graphwright.runs WHERE ended_at IS NULL")
    assert len(rows) == 96


async def test_a_dispatcher_that_dies_before_its_commit_leaves_all_as_it_was(
    notified: Noticing,
) -> None:
    await notified.publish(name="repair")
    await notified.ended({"fix": REPAIR})
    await notified.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
    )
    await notified.execute(
        "CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON job_ticks"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()"
    )
    with pytest.raises(psycopg.OperationalError):
        await notified.dispatcher().dispatch()
    assert (await notified.notice())["attempts"] == 0
    assert len(await notified.site.rows("SELECT FROM graphwright.runs")) == 1
    await notified.execute("DROP TRIGGER dies ON job_ticks")
    assert await notified.dispatcher().dispatch() == 1
    assert (await notified.notice())["status"] == "delivered"


async def test_one_that_cannot_be_stored_costs_only_itself(notified: Noticing) -> None:
    await notified.publish(name="repair")
    graph_id = await notified.publish({"fix": REPAIR})
    runs = [await notified.start(graph_id) for _ in range(3)]
    for run_id in runs:
        await notified.end(run_id, "failed")
    await notified.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''no''; END'"
    )
    await notified.execute(
        "CREATE TRIGGER refuses BEFORE INSERT ON graphwright.run_queue FOR EACH ROW"
        f" WHEN (NEW.run_id = '{notice_id(runs[1], 'fix')}') EXECUTE FUNCTION refuse()"
    )
    assert await notified.dispatcher().dispatch() == 3
    found = [(await notified.notice(run_id))["status"] for run_id in runs]
    assert found == ["delivered", "rejected", "delivered"]
    assert "internal" in (await notified.notice(runs[1]))["reason"]


async def test_what_takes_long_holds_nobody_up(notified: Noticing) -> None:
    await notified.publish(name="repair", params=PARAMS)
    heavy = "${{ trigger.params.all(x, trigger.params.exists(y, y == x)) ? 'y' : 'n' }}"
    slow = {"slow": {**REPAIR, "params": {"x": heavy}}}
    graph_id = await notified.publish(slow, name="heavy", params={"type": "object"})
    costly = await notified.start(graph_id, {f"k{i}": "x" * 200 for i in range(90)})
    await notified.end(costly, "failed")
    quick = await notified.ended({"fix": REPAIR})
    assert await notified.dispatcher().dispatch() == 2
    assert (await notified.notice(quick))["status"] == "delivered"
    notice = await notified.notice(costly)
    assert (notice["status"], notice["lane"], notice["attempts"]) == ("pending", "costly", 0)
    assert await notified.dispatcher().dispatch() == 0
    assert await notified.dispatcher(costly=True).dispatch() == 1
    assert (await notified.notice(costly))["status"] == "delivered"


@pytest.mark.parametrize(
    ("kilobytes", "params", "status"),
    [
        (100, {"n": "${{ trigger.outputs.n }}"}, "delivered"),
        (2_000, {"n": "${{ trigger.outputs.n }}"}, "rejected"),
        (2_000, {"n": "${{ has(trigger.outputs) ? 1 : 2 }}"}, "delivered"),
    ],
)
async def test_large_outputs(
    notified: Noticing, kilobytes: int, params: dict[str, str], status: str
) -> None:
    await notified.publish(name="next", params=PARAMS)
    notify = {"go": {"on": ["succeeded"], "graph": "next", "params": params}}
    run_id = await notified.start(await notified.publish(notify))
    await notified.end(run_id, "succeeded", outputs={"n": 1, "text": "x" * 1_000 * kilobytes})
    assert await notified.dispatcher().dispatch() == 1
    assert (await notified.notice())["lane"] == "costly"
    assert await notified.dispatcher(costly=True).dispatch() == 1
    notice = await notified.notice()
    assert notice["status"] == status
    assert status == "delivered" or "too large" in notice["reason"]


async def test_a_run_that_was_removed_meanwhile(notified: Noticing) -> None:
    run_id = await notified.ended({"fix": REPAIR})
    await notified.execute("DELETE FROM graphwright.runs")
    assert await notified.dispatcher().dispatch() == 1
    notice = await notified.notice(run_id)
    assert notice["status"] == "rejected"
    assert "removed" in notice["reason"]


async def test_notices_are_removed_with_their_runs(notified: Noticing) -> None:
    await notified.publish(name="repair")
    graph_id = await notified.publish({"fix": REPAIR})
    told, untold, kept = [await notified.start(graph_id) for _ in range(3)]
    await notified.end(told, "failed")
    await notified.dispatcher().dispatch()
    for run_id in (untold, kept):
        await notified.end(run_id, "failed")
    await notified.execute(
        "UPDATE graphwright.runs SET sort_id = '00000000-0000-7000-8000-000000000000',"
        " ended_at = now() - interval '40 days' WHERE run_id = ANY(%s::uuid[])",
        [told, untold],
    )
    removed = await prune(notified.site.settings, dry_run=False, progress=lambda _: None)
    assert removed.runs == 2
    assert [row["run_id"] for row in await notified.notices()] == [kept]


async def test_tenants_do_not_meet(notified: Noticing) -> None:
    await notified.publish(name="repair", tenant=TenantId("other"))
    run_id = await notified.ended({"fix": REPAIR})
    theirs = await notified.ended({"fix": REPAIR}, tenant=TenantId("other"))
    assert await notified.dispatcher().dispatch() == 2
    assert (await notified.notice(run_id))["reason"] == "there is no graph repair"
    assert (await notified.notice(theirs))["status"] == "delivered"
    rows = await notified.site.rows(
        "SELECT tenant FROM graphwright.runs WHERE author LIKE 'notify:%%' OR tenant = %s", TENANT
    )
    assert sorted(row["tenant"] for row in rows) == [TENANT, "other"]


async def test_a_shard_sees_to_its_own_tenants(notified: Noticing) -> None:
    kind, code = InstigatorType.SENSOR, notified.site.settings.code_server
    shards = [Instigator.of(NOTIFY_SENSOR, kind, code, shard, 2) for shard in (0, 1)]
    tenants = [TenantId(f"tenant{number}") for number in range(6)]
    for tenant in tenants:
        await notified.ended({"fix": REPAIR}, tenant=tenant)
    rows = await notified.site.rows("SELECT tenant, slice %% 2 AS shard FROM graphwright.notices")
    owners = {row["tenant"]: row["shard"] for row in rows}
    assert set(owners.values()) == {0, 1}
    for shard in shards:
        mine = sum(owner == shard.shard for owner in owners.values())
        assert await replace(notified, instigator=shard).dispatcher().dispatch() == mine
    assert {row["status"] for row in await notified.notices()} == {"rejected"}


@pytest.mark.parametrize("statement", [CLAIM, CLAIM_CALLS], ids=["graphs", "calls"])
async def test_a_claim_reads_what_is_due_and_nothing_else(
    notified: Noticing, statement: str
) -> None:
    await notified.execute(
        "INSERT INTO graphwright.notices (tenant, run_id, name, lane, next_at)"
        " SELECT 'acme', gen_random_uuid(), 'n', 'url', now() + interval '1 hour'"
        " FROM generate_series(1, 20000)"
    )
    await notified.execute("ANALYZE graphwright.notices")
    values = {
        "lane": "url",
        "slices": list(range(64)),
        "limit": 8,
        "most_bytes": 1,
        "full": [],
        "lease_seconds": 60,
    }
    asked: Any = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    async with notified.site.pool.connection() as connection:
        rows = await (await connection.execute(asked, values)).fetchall()
    (plan,) = rows[0]["QUERY PLAN"]
    assert "notices_due" in str(plan)
    blocks = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    assert blocks < 20
