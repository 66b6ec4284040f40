"""A run for each due time of a past range, a few at a time."""

import asyncio
from datetime import datetime, timedelta
from functools import partial

import pytest

from foundation.errors import Conflict, Invalid, NotFound
from foundation.ids import TenantId
from graph_defs.trigger_store import StoredTrigger
from schedules.backfilling import BADLY_ENDED, UNFINISHED, Backfilling
from schedules.backfills import RUNS, Backfill, BackfillStore
from tests.schedules.conftest import TENANT, Timers, at

NOW = at("2030-02-01")
DAILY = {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}
START, END = at("2030-01-01T00:00+01:00"), at("2030-01-11T00:00+01:00")


def asked(
    timers: Timers,
    trigger: StoredTrigger,
    start: datetime = START,
    end: datetime = END,
    most: int = 4,
) -> Backfill:
    async def work(store: BackfillStore, _: Backfilling) -> Backfill:
        backfill, _replayed = await store.create(trigger, start, end, most, "ann", NOW)
        return backfill

    return timers.with_backfills(work)


def standing(timers: Timers, backfill: Backfill) -> Backfill:
    return timers.with_backfills(lambda store, _: store.get(TENANT, backfill.backfill_id))


def step(timers: Timers) -> int:
    return timers.with_backfills(lambda _, backfilling: backfilling.step())


def wait_is_over(timers: Timers) -> None:
    """Let those backfills try again that wait since a run was refused."""
    timers.bench.connection.execute("UPDATE graphwright.backfills SET not_before = now()")


def end_runs(timers: Timers, status: str = "succeeded", count: int = 100) -> None:
    """As workers would."""
    timers.bench.connection.execute(
        "UPDATE graphwright.runs SET status = %s, ended_at = now() WHERE run_id IN"
        " (SELECT run_id FROM graphwright.runs WHERE ended_at IS NULL AND parent_run_id IS NULL"
        "  ORDER BY sort_id LIMIT %s)",
        (status, count),
    )


def test_runs_are_made_in_order_and_few_are_unfinished(timers: Timers) -> None:
    params = {"day": "${{ trigger.due_at }}"}
    backfill = asked(timers, timers.publish({**DAILY, "params": params}, NOW))
    assert (backfill.total, backfill.made, backfill.status) == (10, 0, "running")

    assert step(timers) == 4
    assert step(timers) == 0
    assert timers.fired() == [f"2030-01-0{day}T02:00:00Z" for day in range(1, 5)]
    end_runs(timers, count=3)
    assert step(timers) == 3
    assert standing(timers, backfill).runs == {"queued": 4, "succeeded": 3}
    end_runs(timers)
    assert step(timers) == 3
    assert step(timers) == 0
    assert standing(timers, backfill).status == "running"
    end_runs(timers)
    assert step(timers) == 0

    ended = standing(timers, backfill)
    assert (ended.status, ended.made, ended.refused) == ("succeeded", 10, 0)
    assert ended.ended_at is not None
    assert ended.runs == {"succeeded": 10}
    run = timers.runs()[-1]
    assert run["params"] == {"day": "2030-01-10T02:00:00Z"}
    assert run["trigger"]["backfill_id"] == backfill.backfill_id
    tag = timers.bench.connection.execute(
        "SELECT value FROM run_tags WHERE run_id = %s AND key = 'graphwright/backfill'",
        (str(run["run_id"]),),
    ).fetchone()
    assert tag == {"value": backfill.backfill_id}


def test_a_backfill_leaves_the_timers_own_runs_alone(timers: Timers) -> None:
    trigger = timers.publish({"every": "1d"}, at("2030-01-05"))
    timers.dispatch(at("2030-01-05"))
    asked(timers, trigger, at("2030-01-05"), at("2030-01-06"))
    step(timers)
    assert timers.fired() == ["2030-01-05T00:00:00Z"] * 2
    assert len({run["run_id"] for run in timers.runs()}) == 2


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_backfill_with_a_run_that_did_not_succeed_has_failed(timers: Timers, status: str) -> None:
    backfill = asked(timers, timers.publish(DAILY, NOW), most=100)
    step(timers)
    end_runs(timers, status, 1)
    end_runs(timers)
    step(timers)
    assert standing(timers, backfill).status == "failed"


def test_due_times_that_can_have_no_run_are_counted(timers: Timers) -> None:
    params = {"n": "${{ 1 / (trigger.due_at == '2030-01-02T02:00:00Z' ? 0 : 1) }}"}
    backfill = asked(timers, timers.publish({**DAILY, "params": params}, NOW), most=100)
    step(timers)
    end_runs(timers)
    step(timers)
    ended = standing(timers, backfill)
    assert (ended.status, ended.made, ended.refused) == ("failed", 9, 1)
    assert ended.reason is not None
    assert ended.reason.startswith("2030-01-02T02:00:00Z: ")


def test_what_a_quota_refuses_is_tried_again(timers: Timers) -> None:
    backfill = asked(timers, timers.publish(DAILY, NOW), most=100)
    timers.bench.connection.execute("UPDATE graphwright.tenants SET max_queued = 3")
    assert step(timers) == 3
    timers.bench.connection.execute("UPDATE graphwright.tenants SET max_queued = NULL")
    assert step(timers) == 0  # it waits
    wait_is_over(timers)
    assert step(timers) == 1  # whether there is room again
    assert step(timers) == 6
    assert standing(timers, backfill).made == 10
    assert len(timers.fired()) == len(set(timers.fired())) == 10


def test_one_that_can_start_nothing_waits_and_does_not_end(timers: Timers) -> None:
    backfill = asked(timers, timers.publish(DAILY, NOW))
    timers.bench.connection.execute("UPDATE graphwright.tenants SET max_queued = 0")
    for _ in range(2):
        assert step(timers) == 0
        assert standing(timers, backfill).status == "running"
        wait_is_over(timers)
    timers.bench.connection.execute("UPDATE graphwright.tenants SET max_queued = NULL")
    assert step(timers) == 1


def test_one_that_waits_is_cancelled_at_once(timers: Timers) -> None:
    backfill = asked(timers, timers.publish(DAILY, NOW))
    timers.bench.connection.execute("UPDATE graphwright.tenants SET max_queued = 0")
    step(timers)

    async def cancel(store: BackfillStore, backfilling: Backfilling) -> Backfill:
        await store.cancel(TENANT, backfill.backfill_id)
        await backfilling.step()
        return await store.get(TENANT, backfill.backfill_id)

    assert timers.with_backfills(cancel).status == "cancelled"


def test_it_is_looked_after_often_while_it_can_go_on(timers: Timers) -> None:
    backfill = asked(timers, timers.publish(DAILY, NOW), most=100)

    async def looks_again(_: BackfillStore, backfilling: Backfilling) -> bool:
        await backfilling.step()
        return await backfilling.next_at() is not None

    timers.bench.connection.execute("UPDATE graphwright.tenants SET max_queued = 3")
    assert timers.with_backfills(looks_again)
    assert not timers.with_backfills(looks_again)  # it waits
    timers.bench.connection.execute("UPDATE graphwright.tenants SET max_queued = NULL")
    wait_is_over(timers)
    assert timers.with_backfills(looks_again)
    step(timers)
    end_runs(timers)
    assert timers.with_backfills(looks_again)
    assert standing(timers, backfill).status == "succeeded"
    assert not timers.with_backfills(looks_again)


def test_runs_that_repeat_one_of_its_runs_are_not_its_own(timers: Timers) -> None:
    backfill = asked(timers, timers.publish(DAILY, NOW), most=5)
    assert step(timers) == 5
    timers.bench.connection.execute(
        "INSERT INTO graphwright.runs (tenant, run_id, sort_id, graph_id, graph_version_id,"
        " trigger, params, status, author, parent_run_id) SELECT tenant, gen_random_uuid(),"
        " gen_random_uuid(), graph_id, graph_version_id, trigger, params, other, 'ann', run_id"
        " FROM graphwright.runs, unnest('{queued,failed}'::text[]) AS other"
    )
    end_runs(timers, count=5)
    assert step(timers) == 5
    assert standing(timers, backfill).runs == {"queued": 5, "succeeded": 5}
    timers.bench.connection.execute(
        "UPDATE graphwright.runs SET status = 'succeeded' WHERE parent_run_id IS NULL"
    )
    step(timers)
    assert standing(timers, backfill).status == "succeeded"


def test_a_graph_that_runs_once_at_a_time_is_waited_for(timers: Timers) -> None:
    concurrency = {"limit": 1, "on_conflict": "reject"}
    backfill = asked(timers, timers.publish(DAILY, NOW, concurrency=concurrency))
    for made in range(1, 4):
        step(timers)
        assert standing(timers, backfill).made == made
        end_runs(timers)
        wait_is_over(timers)
    assert standing(timers, backfill).refused == 0


def test_cancelling_ends_its_runs_and_starts_none(timers: Timers) -> None:
    trigger = timers.publish(DAILY, NOW)
    other = asked(timers, trigger)
    backfill = asked(timers, trigger)
    assert step(timers) == 8

    async def cancel(store: BackfillStore, _: Backfilling) -> Backfill:
        return await store.cancel(TENANT, backfill.backfill_id)

    assert timers.with_backfills(cancel).status == "cancelling"
    assert timers.with_backfills(cancel).status == "cancelling"
    assert step(timers) == 4
    assert step(timers) == 0

    ended = standing(timers, backfill)
    assert (ended.status, ended.made) == ("cancelled", 4)
    assert ended.runs == {"cancelled": 4}
    assert standing(timers, other).runs == {"queued": 4}
    with pytest.raises(Conflict):
        timers.with_backfills(cancel)


def test_two_processes_do_not_make_a_run_twice(timers: Timers) -> None:
    backfill = asked(timers, timers.publish({"every": "1h"}, NOW), most=1_000)

    async def work(_: BackfillStore, backfilling: Backfilling) -> list[int]:
        return list(await asyncio.gather(backfilling.step(), backfilling.step()))

    assert sorted(timers.with_backfills(work)) == [0, 240]
    assert standing(timers, backfill).made == len(set(timers.fired())) == 240


@pytest.mark.parametrize(
    ("start", "end", "most", "pointer"),
    [
        (START, START, 4, "/to"),
        (END, START, 4, "/to"),
        (START, NOW + timedelta(seconds=1), 4, "/to"),
        (at("2030-01-01T04:00"), at("2030-01-01T05:00"), 4, "/from"),
        (START, END, 0, "/max_running"),
        (START, END, 1_001, "/max_running"),
    ],
)
def test_a_range_that_cannot_be_is_refused(
    timers: Timers, start: datetime, end: datetime, most: int, pointer: str
) -> None:
    trigger = timers.publish(DAILY, NOW)
    with pytest.raises(Invalid) as raised:
        asked(timers, trigger, start, end, most)
    assert [fault.pointer for fault in raised.value.faults] == [pointer]


def test_a_range_with_too_many_due_times_is_refused(timers: Timers) -> None:
    trigger = timers.publish({"every": "1s"}, NOW)
    assert asked(timers, trigger, NOW - timedelta(seconds=100_000), NOW).total == 100_000
    with pytest.raises(Invalid, match="more than 100,000"):
        asked(timers, trigger, NOW - timedelta(seconds=100_001), NOW)


def test_a_backfill_that_is_no_longer_understood_ends_and_says_so(timers: Timers) -> None:
    trigger = timers.publish(DAILY, NOW)
    backfill, other = asked(timers, trigger), asked(timers, trigger)
    timers.bench.connection.execute(
        "UPDATE graphwright.backfills SET config = %s WHERE backfill_id = %s",
        ('{"type": "timer", "cron": "0 3 * * *", "timezone": "Atlantis"}', backfill.backfill_id),
    )
    assert step(timers) == 4
    ended = standing(timers, backfill)
    assert ended.status == "failed"
    assert "Atlantis" in (ended.reason or "")
    assert standing(timers, other).made == 4


def test_a_key_is_of_one_backfill_whoever_else_asks_meanwhile(timers: Timers) -> None:
    trigger = timers.publish(DAILY, NOW)

    async def work(store: BackfillStore, _: Backfilling) -> list[tuple[Backfill, bool]]:
        ask = partial(store.create, trigger, START, END, 4, "ann", NOW)
        return list(await asyncio.gather(*(ask(idempotency_key="k") for _ in range(8))))

    answers = timers.with_backfills(work)
    assert len({backfill.backfill_id for backfill, _ in answers}) == 1
    assert sorted(replayed for _, replayed in answers) == [False] + [True] * 7


def test_lists_are_of_one_tenant_newest_first(timers: Timers) -> None:
    trigger = timers.publish(DAILY, NOW)
    made = [asked(timers, trigger).backfill_id for _ in range(3)]

    async def work(store: BackfillStore, _: Backfilling) -> list[str]:
        first = await store.list(TENANT, 2)
        rest = await store.list(TENANT, 2, first.next_cursor)
        assert rest.next_cursor is None
        assert not (await store.list(TenantId("other"), 2)).items
        with pytest.raises(NotFound):
            await store.get(TenantId("other"), made[0])
        with pytest.raises(NotFound):
            await store.get(TENANT, "no-uuid")
        return [each.backfill_id for each in (*first.items, *rest.items)]

    assert timers.with_backfills(work) == made[::-1]


def test_its_runs_are_found_by_an_index(timers: Timers) -> None:
    backfill = asked(timers, timers.publish(DAILY, NOW))
    step(timers)
    connection = timers.bench.connection
    connection.execute(
        "INSERT INTO graphwright.runs (tenant, run_id, sort_id, graph_id, graph_version_id,"
        " trigger, params, status, author) SELECT tenant, gen_random_uuid(), gen_random_uuid(),"
        " graph_id, graph_version_id, '{\"type\": \"rest\"}', '{}', 'succeeded', 'ann'"
        " FROM graphwright.runs, generate_series(1, 5000)"
    )
    connection.execute("ANALYZE graphwright.runs")
    values = {"tenant": TENANT, "backfill_id": backfill.backfill_id}
    for statement in (UNFINISHED, BADLY_ENDED, RUNS):
        rows = connection.execute("EXPLAIN " + statement, values)
        plan = "\n".join(row["QUERY PLAN"] for row in rows)
        assert "backfill_id_status_idx" in plan, plan
        assert "backfill_id" in plan.partition("Index Cond")[2], plan
