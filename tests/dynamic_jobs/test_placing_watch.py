"""The watch over what was started elsewhere: kept, removed, forgotten, by one worker at a time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from dynamic_jobs.launcher import GraphwrightRunLauncher
from dynamic_jobs.placing import watcher as watching
from dynamic_jobs.placing.base import Health, Placed, PlacementFailed
from foundation.database import async_connect
from foundation.ids import RunId, new_id
from foundation.turns import has_turn
from tests.dynamic_jobs.conftest import TENANT
from tests.dynamic_jobs.placing_cluster import (
    Cluster,
    cluster,
    look,
    placement,
    start,
    until,
    watcher,
    workers,
)

__all__ = ["cluster"]


def left_behind(cluster: Cluster, count: int, where: str = "team-a") -> None:
    """Rows of runs that are gone."""
    cluster.bench.connection.execute(
        "INSERT INTO graphwright.placements (tenant, run_id, isolation, attempt, location)"
        " SELECT %s, gen_random_uuid(), 'docker', 1, %s FROM generate_series(1, %s)",
        (TENANT, where, count),
    )


@pytest.mark.parametrize(
    "error", [PlacementFailed("away", passing=True), PlacementFailed("forbidden"), RuntimeError()]
)
def test_what_cannot_be_removed_is_kept_and_hides_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(watching, "_AT_ONCE", 2)
    asked: list[str] = []

    def remove(placed: Placed) -> None:
        asked.append(placed.where)
        if placed.where == "stuck":
            raise error

    cluster.remove = remove
    left_behind(cluster, 3, "stuck")
    left_behind(cluster, 2)
    for _ in range(2):
        look(cluster)
    assert sorted(asked) == ["stuck"] * 3 + ["team-a"] * 2  # not at every look
    kept = "SELECT location FROM graphwright.placements"
    assert [row["location"] for row in cluster.bench.connection.execute(kept)] == ["stuck"] * 3
    cluster.bench.connection.execute("UPDATE graphwright.placements SET look_at = now()")
    cluster.remove = lambda placed: None
    look(cluster)
    assert not cluster.bench.connection.execute(kept).fetchall()


@pytest.mark.parametrize("state", ["left", "ended", "over"])
def test_what_has_not_ended_is_told_again_and_no_run_comes_beside_it(
    cluster: Cluster, state: str
) -> None:
    cluster.starts = False
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
    cluster.bench.connection.execute("DELETE FROM graphwright.run_queue")
    change = {
        "left": "status = 'paused'",
        "ended": "status = 'failed', ended_at = now() - interval '1 minute'",
        "over": "status = 'cancelled', ended_at = now()",
    }[state]
    cluster.bench.connection.execute(f"UPDATE graphwright.runs SET {change}")  # type: ignore
    for condition in ("starting", "running", "lost"):
        row = placement(cluster, run_id)
        assert row is not None and not row["removed"]
        cluster.told = Health(condition)
        cluster.bench.connection.execute("UPDATE graphwright.placements SET look_at = now()")
        look(cluster)
        look(cluster)  # too soon
    row = placement(cluster, run_id) or {"removed": None}
    assert row["removed"] is (True if state == "left" else None)
    assert cluster.removed == [Placed(run_id, 1, "team-a")] * 3


def test_what_is_on_a_platform_that_is_configured_no_more_is_forgotten(cluster: Cluster) -> None:
    left_behind(cluster, 1)
    look(cluster, platform_of=GraphwrightRunLauncher().platform)
    assert not cluster.bench.connection.execute("SELECT FROM graphwright.placements").fetchall()


def test_a_platform_that_does_not_answer_does_not_stop_the_watch(cluster: Cluster) -> None:
    answer, again = Event(), Event()

    def remove(placed: Placed) -> None:
        if answer.is_set():
            again.set()
        answer.set()
        again.wait(60)

    cluster.remove = remove
    left_behind(cluster, 1)

    async def work() -> None:
        watch = watcher(cluster, look_seconds=0.01, look_at_most_seconds=0.2)
        task = asyncio.create_task(watch.run())
        assert await asyncio.to_thread(again.wait, 60)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(work())


def test_whoever_reaches_no_platform_lets_another_watch(cluster: Cluster) -> None:
    asked = Event()

    def remove(placed: Placed) -> None:
        asked.set()
        raise PlacementFailed("away", passing=True)

    cluster.remove = remove

    async def work() -> None:
        watching: list[asyncio.Task[None]] = []
        for look_seconds in (3600, 0.01):
            left_behind(cluster, 1)
            task = asyncio.create_task(watcher(cluster, look_seconds=look_seconds).run())
            watching.append(task)
            assert await asyncio.to_thread(asked.wait, 60)
            asked.clear()
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)

    asyncio.run(work())


def test_nothing_of_a_run_that_is_gone_stays_behind(cluster: Cluster) -> None:
    """Retention, or Dagster, may remove a run before its placement was."""
    run_id = RunId(new_id())
    cluster.bench.connection.execute(
        "INSERT INTO graphwright.placements (tenant, run_id, isolation, attempt, location)"
        " VALUES (%s, %s, 'kubernetes', 3, 'team-a')",
        (TENANT, run_id),
    )
    look(cluster)
    assert cluster.removed == [Placed(run_id, 3, "team-a")]
    assert placement(cluster, run_id) is None


LOCKS = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def test_one_worker_watches(cluster: Cluster) -> None:
    """The watch goes on by itself, and to another when its worker ends."""
    looks = Event()

    class Seen(Cluster):
        def health(self, placed: Placed) -> Health:
            looks.set()
            return Health("starting")

    seen = Seen(cluster.bench, cluster.pool, starts=False)
    with workers(seen):
        run_id = start(seen)
        until(seen, run_id, "placed")
    seen.bench.connection.execute(
        "UPDATE graphwright.placements SET placed_at = now() - interval '10 seconds'"
    )
    while seen.bench.connection.execute(LOCKS).fetchone() != {"count": 0}:
        pass  # PostgreSQL has not noticed yet that the worker has gone, with its own turns

    async def work() -> None:
        watching = [asyncio.create_task(watcher(seen, look_seconds=0.01).run()) for _ in range(2)]
        for task in watching:
            await asyncio.to_thread(looks.wait)
            held = seen.bench.connection.execute(LOCKS).fetchone()
            assert held == {"count": 1}
            task.cancel()
            await asyncio.wait([task])
            looks.clear()

    asyncio.run(work())


def sessions(cluster: Cluster) -> int:
    """How many there have been of the database."""
    row = cluster.bench.connection.execute(
        "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None
    return row["sessions"]


def test_who_waits_for_the_turn_opens_no_connection(cluster: Cluster) -> None:
    async def work() -> None:
        async with await async_connect(cluster.bench.settings.database_url) as other:
            assert await has_turn(other, "placements")
            cluster.pool.wait()
            before = sessions(cluster)
            task = asyncio.create_task(watcher(cluster, look_seconds=0.001).run())
            stats = cluster.pool.get_stats
            while stats().get("requests_num", 0) < 10:  # noqa: ASYNC110 - a pool tells nobody
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert sessions(cluster) == before

    asyncio.run(work())


def test_a_watcher_that_stands_still_loses_the_turn(cluster: Cluster) -> None:
    """As one does whose host is gone: nobody tells the server that its connection is."""
    look_at_most = 0.2
    left_behind(cluster, 1)
    again, still = Event(), Event()
    taking = watcher(cluster, look_seconds=0.01, look_at_most_seconds=look_at_most)
    cluster.remove = lambda placed: still.set()

    async def stand_still() -> None:
        task = asyncio.create_task(taking.run())
        await asyncio.to_thread(still.wait)
        again.wait(60)  # no other task goes on either
        task.cancel()
        await asyncio.wait([task])

    async def work() -> None:
        asked = Event()
        cluster.remove = lambda placed: asked.set()
        left_behind(cluster, 1)
        task = asyncio.create_task(watcher(cluster, look_seconds=0.01).run())
        assert await asyncio.to_thread(asked.wait, 60)
        task.cancel()
        await asyncio.wait([task])

    with ThreadPoolExecutor(1) as threads:
        standing = threads.submit(lambda: asyncio.run(stand_still()))
        assert still.wait(60)
        asyncio.run(work())
        again.set()
        standing.result()
