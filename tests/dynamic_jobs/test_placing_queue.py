"""Runs that are to be placed, between the queue, the worker that places them and their process."""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable, Collection, Generator
from threading import Event, Thread
from typing import Any

import pytest

from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.placing.base import PlacementFailed, PlacementRequest
from dynamic_jobs.queueing.claiming import FIRST_TURN, Claim, claim, claim_solo, claim_unplaced
from dynamic_jobs.queueing.handing_back import hand_back, set_aside
from dynamic_jobs.queueing.promotion import next_solo
from dynamic_jobs.queueing.taking_over import give_up, take_over
from dynamic_jobs.workers import worker as workers_module
from dynamic_jobs.workers.prefork_child import ASIDE, ChildLink
from dynamic_jobs.workers.solo_runs import SoloRuns
from foundation.database import AsyncConnection, Connection, async_connect
from foundation.ids import RunId, TenantId, new_id
from tests.dynamic_jobs.conftest import TENANT, Bench, graph
from tests.dynamic_jobs.placing_cluster import (
    ONE,
    Cluster,
    PlacingWorker,
    ThreadWorker,
    at_once,
    cluster,
    not_by_itself,
    start,
    state_of,
    until,
    workers,
)

__all__ = ["cluster", "not_by_itself"]

WAITED = "SELECT waited FROM graphwright.run_queue WHERE run_id = %s"


def as_if_started(bench: Bench, run_id: RunId, state: str = "ready") -> None:
    """As if it had left a worker because it only waited."""
    bench.connection.execute(
        "UPDATE graphwright.runs SET started_at = now(), status = 'waiting' WHERE run_id = %s",
        (run_id,),
    )
    bench.connection.execute(
        "UPDATE graphwright.run_queue SET state = %s, admitted = true, waited = true"
        " WHERE run_id = %s",
        (state, run_id),
    )


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lost(bench: Bench, run_id: RunId) -> tuple[str, bool, int]:
    row = bench.row(run_id)
    return row["status"], row["lost"], row["strikes"]


def test_only_what_executes_a_run_is_lost_with_it(bench: Bench) -> None:
    version = bench.publish(graph(ONE, isolation="process"))
    placing, executing, unheard = (bench.start(version) for _ in range(3))
    as_if_started(bench, placing)
    as_if_started(bench, executing, "solo")
    as_if_started(bench, unheard, "solo")
    worker, alone, deaf = (new_id() for _ in range(3))

    async def work() -> None:
        async with await async_connect(bench.settings.database_url) as connection:
            (claimed,) = await claim(connection, worker, 10, FIRST_TURN)
            assert claimed.goes_elsewhere
            assert bench.row(placing)["status"] == "queued"
            await claim_solo(connection, alone, executing)
            (stray,) = await claim_solo(connection, deaf, unheard)
            assert bench.row(executing)["status"] == "running"
            assert set(await take_over(connection, 60, [], [worker, alone])) == {placing, executing}
            assert set(await give_up(connection, deaf, [(unheard, stray.lease.epoch)])) == {unheard}

    asyncio.run(work())
    assert lost(bench, placing) == ("queued", False, 0)
    assert bench.connection.execute(WAITED, (placing,)).fetchone() == {"waited": True}
    assert lost(bench, executing) == ("queued", True, 1)
    assert bench.connection.execute(WAITED, (executing,)).fetchone() == {"waited": False}
    assert lost(bench, unheard) == ("queued", False, 1)


def test_a_drained_worker_whose_platform_does_not_answer_costs_its_runs_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, asked, answer = cluster.bench, Event(), Event()

    def after(_: PlacementRequest) -> None:
        asked.set()
        answer.wait()

    cluster.starts, cluster.after = False, after
    monkeypatch.setattr(workers_module, "_WIND_DOWN_SECONDS", 0.1)
    run_id = start(cluster, on_lost="fail")
    as_if_started(bench, run_id)
    draining = PlacingWorker(cluster, drain_seconds=0)
    thread = Thread(target=draining.run)
    thread.start()
    try:
        asked.wait()
        draining.stop()
        there = "SELECT FROM graphwright.workers WHERE worker = %s"
        eventually(lambda: not bench.connection.execute(there, (draining.id,)).fetchall())
        assert str(bench.row(run_id)["worker"]) == draining.id

        async def work() -> None:
            async with await async_connect(bench.settings.database_url) as connection:
                assert await take_over(connection, 60, [], [draining.id])

        asyncio.run(work())
        cluster.starts, cluster.after = True, lambda _: None
        with workers(cluster):
            row = bench.wait_for(run_id)
    finally:
        answer.set()
        thread.join()
    assert (row["status"], row["strikes"]) == ("succeeded", 0)
    assert [request.attempt for request in cluster.requests] == [1, 2]


def states(cluster: Cluster, runs: Collection[RunId]) -> list[str | None]:
    return sorted((state_of(cluster, run_id) for run_id in runs), key=str)


def test_what_there_is_no_room_to_place_stays_on_the_queue(cluster: Cluster) -> None:
    """To be cancelled, or placed by another, in its turn; runs of other kinds go on."""
    bench, answer = cluster.bench, Event()
    cluster.after = lambda _: answer.wait()
    version = bench.publish(graph(ONE, isolation="kubernetes"))
    with workers(cluster, placing_threads=1, worker_runs=2):
        first, *others = bench.start_many(version, 9)
        urgent = bench.start(version, priority=5)
        warm = bench.start(bench.publish(graph(ONE, name="warm")))
        assert bench.wait_for(warm)["status"] == "succeeded"
        runs = {first, urgent, *others}
        waiting = [None, *["unplaced"] * 9]
        eventually(lambda: states(cluster, runs) == waiting)
        (held,) = {run_id for run_id in runs if state_of(cluster, run_id) is None}
        unplaced = sorted(runs - {held, urgent})
        gone = unplaced.pop()
        assert cancel(bench.connection, bench.storage.writer, TENANT, gone) == "cancelled"
        answer.set()
        for run_id in runs - {gone}:
            assert bench.wait_for(run_id)["status"] == "succeeded"
    placed = [request.run_id for request in cluster.requests]
    assert placed == list(dict.fromkeys([held, urgent, *in_order(bench.connection, unplaced)]))


def in_order(connection: Connection, runs: list[RunId]) -> list[RunId]:
    rows = connection.execute(
        "SELECT run_id::text FROM graphwright.runs WHERE run_id = ANY(%s)"
        " ORDER BY COALESCE(not_before, created_at), run_id",
        (runs,),
    )
    return [RunId(row["run_id"]) for row in rows]


def test_another_worker_places_what_one_has_set_aside(cluster: Cluster) -> None:
    bench, answer = cluster.bench, Event()
    cluster.after = lambda _: answer.wait()
    version = bench.publish(graph(ONE, isolation="kubernetes"))
    with workers(cluster, placing_threads=1):
        runs = bench.start_many(version, 2)
        eventually(lambda: states(cluster, runs) == [None, "unplaced"])
        with workers(cluster, placing_threads=1):
            eventually(lambda: len(cluster.requests) == 2)
            answer.set()
        for run_id in runs:
            assert bench.wait_for(run_id)["status"] == "succeeded"


def test_what_is_set_aside_keeps_its_place_and_its_owners_wishes(bench: Bench) -> None:
    version = bench.publish(graph(ONE, isolation="process"))
    plain, cancelled = (bench.start(version) for _ in range(2))
    as_if_started(bench, plain)
    queued = "SELECT not_before, waited, state FROM graphwright.run_queue WHERE run_id = %s"
    before = bench.connection.execute(queued, (plain,)).fetchone()
    assert before is not None

    async def work() -> None:
        async with await async_connect(bench.settings.database_url) as connection:
            claims = await claim(connection, new_id(), 10, FIRST_TURN)
            bench.connection.execute(
                "UPDATE graphwright.runs SET status = 'cancelling' WHERE run_id = %s", (cancelled,)
            )
            assert await set_aside(connection, claims) == {plain}
            assert await set_aside(connection, claims) == set()
            after = bench.connection.execute(queued, (plain,)).fetchone()
            assert after == {**before, "state": "unplaced"}
            (again,) = await claim_unplaced(connection, new_id(), 10, FIRST_TURN)
            assert (again.lease.run_id, again.waited) == (plain, True)

    asyncio.run(work())


@pytest.mark.usefixtures("not_by_itself")
def test_that_a_run_had_only_waited_is_kept_while_it_cannot_be_placed(cluster: Cluster) -> None:
    cluster.fault = PlacementFailed("away", passing=True)
    run_id = start(cluster)
    as_if_started(cluster.bench, run_id)
    with workers(cluster):
        until(cluster, run_id, "delayed")
        row = cluster.bench.connection.execute(WAITED, (run_id,)).fetchone()
        assert row == {"waited": True}
        cluster.fault = None
        at_once(cluster, run_id)
        assert cluster.bench.wait_for(run_id)["status"] == "succeeded"


@pytest.mark.parametrize("waited", [True, False])
def test_handing_back_says_whether_the_run_only_waited(bench: Bench, waited: bool) -> None:
    run_id = bench.start(bench.publish(graph(ONE)))

    async def work() -> Claim:
        async with await async_connect(bench.settings.database_url) as connection:
            (claimed,) = await claim(connection, new_id(), 1, FIRST_TURN)
            return claimed

    claimed = asyncio.run(work())
    assert hand_back(bench.connection, claimed.lease, waited=waited) == "queued"
    assert bench.connection.execute(WAITED, (run_id,)).fetchone() == {"waited": waited}


def test_a_process_claims_what_is_handed_over_between_its_looks(cluster: Cluster) -> None:
    looked, handed = Event(), Event()

    class Slow(ThreadWorker):
        async def _is_being_placed(self, connection: AsyncConnection) -> bool:
            looked.set()
            await asyncio.to_thread(handed.wait)
            return await super()._is_being_placed(connection)

        async def claim(self, connection: AsyncConnection, limit: int) -> list[Claim]:
            claims = await super().claim(connection, limit)
            assert claims
            return claims

    def after(request: PlacementRequest) -> None:
        worker = Slow(cluster.bench.settings, cluster.bench.limits, request.run_id)
        thread = cluster.threads[request.run_id, 1] = Thread(target=worker.run)
        thread.start()
        looked.wait()

    cluster.starts, cluster.after = False, after
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
        handed.set()
        assert cluster.bench.wait_for(run_id)["status"] == "succeeded"


def test_a_process_waits_for_whoever_has_the_lock_on_its_run(bench: Bench) -> None:
    run_id = bench.start(bench.publish(graph(ONE)))
    bench.connection.execute("UPDATE graphwright.run_queue SET state = 'placed'")
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"

    async def work() -> None:
        url = bench.settings.database_url
        async with await async_connect(url) as locking, await async_connect(url) as connection:
            async with locking.transaction():
                await locking.execute("SELECT FROM graphwright.run_queue FOR UPDATE")
                claiming = asyncio.create_task(claim_solo(connection, new_id(), run_id))
                name = locking.info.dbname
                while not await (await locking.execute(waiting, (name,))).fetchall():
                    assert not claiming.done()
            (claimed,) = await claiming
            assert claimed.lease.run_id == run_id

    asyncio.run(work())


def test_a_process_that_is_to_leave_hands_its_run_back_untouched(bench: Bench) -> None:
    run_id = bench.start(bench.publish(graph(ONE, isolation="process")))
    bench.connection.execute("UPDATE graphwright.run_queue SET state = 'placed', admitted = true")
    worker = ThreadWorker(bench.settings, bench.limits, run_id)
    worker.hand_back()
    worker.run()
    worker.stop()  # as the time for draining ends now
    row = bench.row(run_id)
    assert (row["status"], row["started_at"], row["worker"]) == ("queued", None, None)
    queued = "SELECT state FROM graphwright.run_queue"
    assert bench.connection.execute(queued).fetchall() == [{"state": "ready"}]
    assert bench.events(run_id) == [("PIPELINE_ENQUEUED", None)]


@pytest.fixture
def solo() -> Generator[tuple[SoloRuns, Any]]:
    """Room for three processes, and the other end of who starts them."""
    ours, theirs = multiprocessing.Pipe()
    yield SoloRuns(ChildLink(os.getpid(), theirs), 3), ours
    ours.close()
    theirs.close()


def test_of_runs_that_lost_workers_one_has_a_process_at_a_time(solo: tuple[SoloRuns, Any]) -> None:
    runs, parent = solo
    first, second, third, fourth = (RunId(new_id()) for _ in range(4))
    assert runs.reserve(first, struck=True)
    assert not runs.reserve(second, struck=True)
    assert runs.reserve(second, struck=False)
    runs.release(first)
    assert runs.reserve(third, struck=True)
    assert runs.reserve(first, struck=False)
    assert not runs.reserve(fourth, struck=False)
    runs.start(third, struck=True)
    assert parent.recv_bytes() == ASIDE + third.encode()
    parent.send_bytes(ASIDE + third.encode())
    assert runs.reserve(fourth, struck=True)


def test_a_look_for_runs_with_processes_visits_some_tenants(bench: Bench) -> None:
    """The next look begins where it ended."""
    run_id = bench.start(bench.publish(graph(ONE)))
    connection = bench.connection
    connection.execute("UPDATE graphwright.runs SET tenant = 'z'")
    connection.execute("UPDATE graphwright.run_queue SET tenant = 'z', state = 'solo'")
    connection.execute(
        "INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state, not_before)"
        " SELECT gen_random_uuid(), 't' || to_char(n, 'fm0000'), gen_random_uuid(), 'solo',"
        " now() + interval '1 hour' FROM generate_series(1, 150) n"
    )

    async def work() -> None:
        async with await async_connect(bench.settings.database_url) as looking:
            found, after = await next_solo(looking, TenantId(""), take_struck=True)
            assert (found, after) == (None, "t0100")
            found, after = await next_solo(looking, after, take_struck=True)
            assert found is not None
            assert (found.run_id, after) == (run_id, "z")

    asyncio.run(work())
