"""Ends of runs set something off, once, and start other graphs."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from psycopg.sql import SQL, Identifier

from dynamic_jobs.queueing.waking import DISPATCH_CHANNEL, NOTICES
from foundation.database import async_connect
from foundation.ids import RunId
from sensors.notice_params import MOST_DEPTH
from sensors.notices import notice_id
from tests.sensors.conftest import Site
from tests.sensors.noticing import ENDS, ERROR, REPAIR, Noticing, noticing

pytestmark = pytest.mark.anyio

PARAMS = {"type": "object", "additionalProperties": {"type": ["string", "integer", "object"]}}


@pytest.fixture
async def notified(site: Site) -> AsyncGenerator[Noticing]:
    async with noticing(site) as opened:
        yield opened


@pytest.mark.parametrize("status", sorted(ENDS))
async def test_an_end_makes_a_notice_for_each_entry_that_wants_to_know(
    notified: Noticing, status: str
) -> None:
    notify = {
        "always": {"on": ["succeeded", "failed", "cancelled"], "graph": "other"},
        "tell": {"on": ["failed", "cancelled"], "url": "https://example.org", "secret": "s"},
        "good": {"on": ["succeeded"], "graph": "other"},
    }
    await notified.ended(notify, status)
    found = {(row["name"], row["lane"], row["status"]) for row in await notified.notices()}
    other = ("good", "graph") if status == "succeeded" else ("tell", "url")
    assert found == {("always", "graph", "pending"), (*other, "pending")}


async def test_a_graph_without_notify_sets_nothing_off(notified: Noticing) -> None:
    run_id = await notified.start(await notified.publish())
    assert (await notified.site.row("SELECT notifies FROM graphwright.runs"))["notifies"] is None
    await notified.end(run_id, "failed")
    assert await notified.notices() == []


async def test_a_run_that_is_cancelled_while_it_is_queued(notified: Noticing) -> None:
    run_id = await notified.start(
        await notified.publish({"tell": {"on": ["cancelled"], "graph": "other"}})
    )
    await asyncio.to_thread(notified.cancel, run_id)
    assert (await notified.notice(run_id))["name"] == "tell"


async def test_a_run_ends_once_whatever_follows(notified: Noticing) -> None:
    run_id = await notified.ended({"n": {"on": ["failed", "cancelled"], "graph": "other"}})
    for status in ("cancelled", "failed"):
        await notified.end(run_id, status)
    assert (await notified.notice())["attempts"] == 0


@pytest.mark.parametrize("deferred", [True, False], ids=["at the commit", "before it"])
async def test_a_writer_that_is_cut_off_makes_the_notice_once(
    notified: Noticing, *, deferred: bool
) -> None:
    await notified.execute("CREATE SEQUENCE tries")  # its numbers outlive rollbacks
    await notified.execute(
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF nextval(''tries'') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid());"
        " END IF; RETURN NULL; END'"
    )
    when = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    await notified.execute(
        f"CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON graphwright.notices {when}"
        " FOR EACH ROW EXECUTE FUNCTION die()"
    )
    run_id = await notified.ended({"n": {"on": ["failed"], "graph": "other"}})
    assert (await notified.site.row("SELECT last_value FROM tries"))["last_value"] == 2
    assert (await notified.notice(run_id))["status"] == "pending"


async def test_the_dispatcher_is_told_of_notices_and_of_nothing_else(notified: Noticing) -> None:
    plain = await notified.start(await notified.publish(name="plain"))
    async with await async_connect(notified.site.settings.database_url) as listener:
        await listener.execute(SQL("LISTEN {}").format(Identifier(DISPATCH_CHANNEL)))
        await notified.end(plain, "failed")
        await notified.ended({"n": {"on": ["failed"], "graph": "other"}})
        await notified.execute("SELECT pg_notify('graphwright_triggers', 'last')")
        told = [note.payload async for note in listener.notifies(timeout=30, stop_after=2)]
    assert told == [NOTICES, "last"]


async def test_a_failure_starts_another_graph_with_what_there_is_to_know(
    notified: Noticing,
) -> None:
    await notified.publish(name="repair", params=PARAMS)
    params = {
        "why": "${{ trigger.error.code + ' in ' + trigger.error.node }}",
        "of": "${{ trigger.graph + ' ' + string(trigger.version) + ' ' + trigger.status }}",
        "who": "${{ trigger.params.who }}",
        "run": "${{ trigger.run_id }}",
    }
    graph_id = await notified.publish(
        {"fix": {**REPAIR, "params": params}}, params={"type": "object"}
    )
    run_id = await notified.start(graph_id, {"who": "ann"})
    await notified.end(run_id, "failed", error=ERROR)
    assert await notified.dispatcher().dispatch() == 1
    started = await notified.site.row(
        "SELECT * FROM graphwright.runs WHERE run_id <> %s::uuid", run_id
    )
    assert started["params"] == {
        "why": "expression_failed in a",
        "of": "tested 1 failed",
        "who": "ann",
        "run": run_id,
    }
    assert started["trigger"] == {
        "type": "run",
        "name": "fix",
        "run_id": run_id,
        "graph": "tested",
        "status": "failed",
        "depth": 1,
    }
    assert started["author"] == "notify:tested/fix"
    notice = await notified.notice()
    assert notice["status"] == "delivered"
    assert notice["started"] == str(started["run_id"]) == notice_id(run_id, "fix")
    assert notice["ended_at"] is not None
    (tick,) = await notified.ticks()
    assert tick["run_ids"] == [notice["started"]]
    tags = await notified.site.rows(
        "SELECT value FROM run_tags WHERE key = 'dagster/sensor_name' AND run_id = %s",
        notice["started"],
    )
    assert tags == [{"value": "notify_sensor"}]
    assert await notified.dispatcher().dispatch() == 0


async def test_a_success_hands_its_outputs_on(notified: Noticing) -> None:
    await notified.publish(name="next", params=PARAMS)
    notify = {"go": {"on": ["succeeded"], "graph": "next", "params": "${{ trigger.outputs }}"}}
    run_id = await notified.start(await notified.publish(notify))
    await notified.end(run_id, "succeeded", outputs={"rows": 7})
    await notified.dispatcher().dispatch()
    started = (await notified.notice())["started"]
    run = await notified.site.row("SELECT params FROM graphwright.runs WHERE run_id = %s", started)
    assert run["params"] == {"rows": 7}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"graph": "missing"}, "there is no graph missing"),
        ({"params": {"x": "${{ trigger.error.missing }}"}}, 'no key "missing"'),
        ({"params": {"x": [1]}}, "/params/x"),
        ({"params": "${{ trigger.error.code }}"}, "no object"),
    ],
)
async def test_what_starts_no_run_is_kept_with_its_reason(
    notified: Noticing, entry: dict[str, Any], reason: str
) -> None:
    await notified.publish(name="repair", params=PARAMS)
    await notified.ended({"fix": {**REPAIR, **entry}})
    assert await notified.dispatcher().dispatch() == 1
    notice = await notified.notice()
    assert (notice["status"], notice["attempts"]) == ("rejected", 1)
    assert reason in notice["reason"]
    assert notice["ended_at"] is not None
    (tick,) = await notified.ticks()
    assert tick["status"] == "SKIPPED"


async def test_graphs_that_start_each_other_come_to_an_end(notified: Noticing) -> None:
    again = {"again": {"on": ["failed"], "graph": "tested"}}
    await notified.ended(again)
    started = 0
    while await notified.dispatcher().dispatch():
        pending = await notified.site.rows(
            "SELECT run_id::text FROM graphwright.runs WHERE ended_at IS NULL"
        )
        for row in pending:
            started += 1
            await notified.end(RunId(row["run_id"]), "failed", error=ERROR)
    assert started == MOST_DEPTH
    rejected = [row for row in await notified.notices() if row["status"] == "rejected"]
    assert len(rejected) == 1
    assert "for ever" in rejected[0]["reason"]


async def test_what_a_quota_keeps_back_is_tried_again_later(notified: Noticing) -> None:
    await notified.publish(name="repair")
    await notified.ended({"fix": REPAIR})
    await notified.start(await notified.publish(name="plain"))
    await notified.execute("UPDATE graphwright.tenants SET max_queued = 1")
    assert await notified.dispatcher().dispatch() == 1
    notice = await notified.notice()
    assert (notice["status"], notice["attempts"]) == ("pending", 1)
    assert "queue" in notice["reason"]
    assert await notified.dispatcher().dispatch() == 0, "not at once"
    await notified.execute("UPDATE graphwright.tenants SET max_queued = NULL")
    await notified.make_due()
    assert await notified.dispatcher().dispatch() == 1
    notice = await notified.notice()
    assert (notice["status"], notice["attempts"], notice["reason"]) == ("delivered", 2, None)


async def test_while_the_sensor_is_off_notices_wait(notified: Noticing) -> None:
    await notified.publish(name="repair")
    await notified.ended({"fix": REPAIR})
    await notified.execute(
        "INSERT INTO instigators (selector_id, status) VALUES (%s, 'STOPPED')",
        notified.instigator.selector_id,
    )
    assert await notified.dispatcher().dispatch() == 0
    assert (await notified.notice())["status"] == "pending"
    await notified.execute("UPDATE instigators SET status = 'RUNNING'")
    assert await notified.dispatcher().dispatch() == 1
