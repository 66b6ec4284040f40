"""Dispatchers of timers at once, cut off, and among very many timers."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from dagster import DagsterInstance

from foundation.database import Connection, async_pool, connect
from foundation.ids import RunId
from graph_defs.recurrence import due_text
from schedules.batch import TimerLane
from schedules.dispatching import TimerDispatcher
from schedules.statements import CLAIM, MOVE, NEXT_FIRE
from tests.schedules.conftest import SCHEDULE, TENANT, Timers
from tests.schedules.test_dispatching import DAILY, DUE


def waiting_backend(connection: Connection) -> int:
    """The process id of the backend that waits for a lock, once there is one."""
    asked = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while (row := connection.execute(asked).fetchone()) is None:
        pass
    return row["pid"]


def test_a_dispatcher_that_is_cut_off_leaves_nothing_behind(timers: Timers) -> None:
    trigger = timers.publish(DAILY, DUE)
    failures: list[BaseException] = []

    def dispatch() -> None:
        try:
            timers.dispatch(DUE)
        except psycopg.OperationalError as error:
            failures.append(error)

    with connect(timers.bench.settings.database_url) as other, other.transaction():
        other.execute("LOCK TABLE job_ticks")  # the last that a batch writes to
        cut_off = threading.Thread(target=dispatch)
        cut_off.start()
        backend = waiting_backend(timers.bench.connection)
        timers.bench.connection.execute("SELECT pg_terminate_backend(%s)", (backend,))
        cut_off.join()

    assert len(failures) == 1
    assert timers.fired() == []
    row = timers.row(trigger)
    assert row is not None
    assert row["due_at"] == DUE

    assert timers.dispatch(DUE + timedelta(seconds=1)) == 1
    assert timers.fired() == [due_text(DUE)]


MANY = """
INSERT INTO graphwright.triggers (tenant, trigger_id, graph_id, name, type, config)
SELECT tenant, md5('trigger' || n)::uuid, graph_id, 'timer' || n, 'timer', config
FROM graphwright.triggers, generate_series(1, %(count)s) n;

INSERT INTO graphwright.timers (trigger_id, tenant, due_at, fire_at)
SELECT md5('trigger' || n)::uuid, tenant, due_at, fire_at
FROM graphwright.timers, generate_series(1, %(count)s) n;
"""


@pytest.mark.parametrize("lane", ["quick", "behind"])
def test_dispatchers_at_once_start_each_run_once(timers: Timers, lane: TimerLane) -> None:
    timers.publish(DAILY, DUE)
    timers.bench.connection.execute(MANY % {"count": 999})  # pyright: ignore[reportArgumentType, reportCallIssue]
    timers.bench.connection.execute("UPDATE graphwright.timers SET lane = %s", (lane,))

    async def drain(url: str) -> int:
        async with async_pool(url, size=3) as pool:
            evaluator = timers.bench.runtime.evaluator
            dispatcher = TimerDispatcher(pool, timers.many(pool), evaluator, SCHEDULE, lane=lane)
            done = 0
            while dispatched := await dispatcher.dispatch(DUE):
                done += dispatched
            return done

    async def at_once() -> list[int]:
        url = timers.bench.settings.database_url
        return await asyncio.gather(*(drain(url) for _ in range(3)))

    done = asyncio.run(at_once())

    assert sum(done) == 1_000
    assert timers.fired() == [due_text(DUE)] * 1_000
    assert len({run["trigger"]["trigger_id"] for run in timers.runs()}) == 1_000
    with DagsterInstance.get() as instance:
        ticks = instance.get_ticks(SCHEDULE.origin_id, SCHEDULE.selector_id)
    ticked = [RunId(run_id) for tick in ticks for run_id in tick.run_ids]
    assert sorted(ticked) == sorted(str(run["run_id"]) for run in timers.runs())


def explained(connection: Connection, statement: str, values: dict[str, Any]) -> str:
    with connection.transaction(force_rollback=True):
        rows = connection.execute("EXPLAIN (ANALYZE, FORMAT TEXT) " + statement, values)  # pyright: ignore[reportArgumentType, reportCallIssue]
        return "\n".join(row["QUERY PLAN"] for row in rows)


def test_of_100_000_timers_a_claim_reads_only_what_is_due(timers: Timers) -> None:
    trigger = timers.publish(DAILY, DUE + timedelta(days=1))
    connection = timers.bench.connection
    connection.execute(MANY % {"count": 99_999})  # pyright: ignore[reportArgumentType, reportCallIssue]
    connection.execute("ANALYZE graphwright.timers, graphwright.triggers")
    timers.set(trigger, DUE, DUE)
    values = {"lane": "quick", "now": DUE, "slices": SCHEDULE.slices, "limit": 256}

    plan = explained(connection, CLAIM, values)
    assert "Index Scan using timers_due on timers" in plan
    scans = [line for line in plan.splitlines() if "Seq Scan" in line]
    assert all("(never executed)" in line for line in scans)  # of partitions of other tenants
    assert "Rows Removed" not in plan

    assert "timers_due" in explained(connection, NEXT_FIRE, values)
    moved = f'[{{"trigger_id": "{trigger.trigger_id}", "tenant": "{TENANT}",' + (
        f'"due_at": "{DUE}", "fire_at": "{DUE}", "lane": "quick"}}]'
    )
    plan = explained(connection, MOVE, {"timers": moved})
    assert "Conflict Arbiter Indexes: timers_pkey" in plan
    assert "Scan on timers" not in plan
