"""A platform for tests of placing: a thread for each run, of which it says what a test wants.

The workers, the queue and what is started for a run are real, and in this process.
"""

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, ClassVar

import pytest

from dynamic_jobs.placing import placer as placing
from dynamic_jobs.placing import watcher as watching
from dynamic_jobs.placing.base import Health, Placed, PlacementRequest
from dynamic_jobs.placing.placer import PlatformOf
from dynamic_jobs.queueing import taking_over
from dynamic_jobs.workers.instance import WorkerInstance
from dynamic_jobs.workers.solo import SoloWorker
from dynamic_jobs.workers.worker import Worker
from foundation.database import Pool, async_connect, pool
from foundation.ids import RunId
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value


class ThreadWorker(SoloWorker):
    """What would be started for a run, as a thread: what the process prints is others' too."""

    captures = False


ONE = {"one": value(1)}
POLICY = {
    "isolations": ["warm", "kubernetes"],
    "placement": '{"kubernetes": {"namespace": "team-a"}}',
}


@dataclass
class Cluster:
    """A platform. What is placed runs in threads, if ``starts``."""

    bench: Bench
    pool: Pool
    starts: bool = True
    fault: Exception | None = None
    told: Health | None = None
    requests: list[PlacementRequest] = field(default_factory=list[PlacementRequest])
    removed: list[Placed] = field(default_factory=list[Placed])
    threads: dict[tuple[RunId, int], Thread] = field(
        default_factory=dict[tuple[RunId, int], Thread]
    )
    after: Callable[[PlacementRequest], object] = lambda _: None
    """Called when a run has been started, before the worker hears of it."""
    lingers: ClassVar[bool] = False

    def locate(self, request: PlacementRequest) -> str:
        return request.policy.kubernetes.namespace or "anywhere"

    def place(self, request: PlacementRequest) -> None:
        self.requests.append(request)
        if self.fault is not None:
            raise self.fault
        if self.starts:
            self.start(request.run_id, request.attempt)
        self.after(request)

    def start(self, run_id: RunId, attempt: int) -> None:
        worker = ThreadWorker(self.bench.settings, self.bench.limits, run_id)
        thread = Thread(target=worker.run, name=f"{run_id} {attempt}")
        self.threads[run_id, attempt] = thread
        thread.start()

    def health(self, placed: Placed) -> Health:
        if self.told is not None:
            return self.told
        thread = self.threads.get((placed.run_id, placed.attempt))
        if thread is None:
            return Health("gone")
        return Health("running" if thread.is_alive() else "finished")

    def remove(self, placed: Placed) -> None:
        self.removed.append(placed)


class PlacingWorker(Worker):
    """A worker of this cluster, that leaves the watching to the test."""

    def __init__(self, cluster: Cluster, **changes: Any) -> None:
        bench = cluster.bench
        super().__init__(bench.settings.model_copy(update=changes), bench.limits)
        self._cluster = cluster

    def _platform_of(self, instance: WorkerInstance) -> PlatformOf:
        return lambda _: self._cluster

    def _watcher(self, instance: WorkerInstance, connections: Pool) -> watching.Watcher:
        return watcher(self._cluster, kind=_Blind)


class _Blind(watching.Watcher):
    """Does not even look once, which may be at any time after its worker has begun."""

    async def run(self) -> None:
        await asyncio.Event().wait()


def watcher(
    cluster: Cluster,
    platform_of: PlatformOf | None = None,
    kind: type[watching.Watcher] = watching.Watcher,
    **more: Any,
) -> watching.Watcher:
    bench = cluster.bench
    return kind(
        bench.settings.database_url,
        cluster.pool,
        bench.storage.writer,
        platform_of or (lambda _: cluster),
        threads=2,
        timeout_seconds=300,
        **more,
    )


@pytest.fixture
def cluster(bench: Bench) -> Generator[Cluster]:
    bench.connection.execute(
        "INSERT INTO graphwright.tenants (tenant, isolations, placement)"
        " VALUES (%s, %s, %s) ON CONFLICT (tenant) DO UPDATE"
        " SET isolations = excluded.isolations, placement = excluded.placement",
        (TENANT, POLICY["isolations"], POLICY["placement"]),
    )
    with pool(bench.settings.database_url, size=1) as connections:
        cluster = Cluster(bench, connections)
        yield cluster
        for thread in cluster.threads.values():
            thread.join()


@contextmanager
def workers(cluster: Cluster, count: int = 1, **changes: Any) -> Generator[list[PlacingWorker]]:
    started = [PlacingWorker(cluster, **changes) for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        working = [threads.submit(worker.run) for worker in started]
        try:
            yield started
        finally:
            for worker in started:
                worker.stop()
            for each in working:
                each.result()


def start(cluster: Cluster, nodes: dict[str, Any] | None = None, **more: Any) -> RunId:
    document = graph(nodes or ONE, isolation="kubernetes", **more)
    return cluster.bench.start(cluster.bench.publish(document))


def look(cluster: Cluster, *, late: bool = True, platform_of: PlatformOf | None = None) -> None:
    """Have the watcher look once, some seconds after all was placed."""
    if late:
        cluster.bench.connection.execute(
            "UPDATE graphwright.placements SET placed_at = placed_at - interval '10 seconds'"
        )

    async def work() -> None:
        async with await async_connect(cluster.bench.settings.database_url) as connection:
            with ThreadPoolExecutor(2) as threads:
                await watcher(cluster, platform_of).look(connection, threads)

    asyncio.run(work())


def placement(cluster: Cluster, run_id: RunId) -> dict[str, Any] | None:
    return cluster.bench.connection.execute(
        "SELECT attempt, location, removed, failures, unexplained, reason"
        " FROM graphwright.placements WHERE run_id = %s",
        (run_id,),
    ).fetchone()


def state_of(cluster: Cluster, run_id: RunId) -> str | None:
    row = cluster.bench.connection.execute(
        "SELECT state FROM graphwright.run_queue WHERE run_id = %s", (run_id,)
    ).fetchone()
    return None if row is None else row["state"]


def until(cluster: Cluster, run_id: RunId, state: str, attempt: int = 1) -> None:
    """Wait until the run is in this state of the queue, after so many attempts."""
    deadline = time.monotonic() + 60
    while True:
        row = placement(cluster, run_id)
        tried = 0 if row is None else row["attempt"]
        if (state_of(cluster, run_id), tried) == (state, attempt):
            return
        assert time.monotonic() < deadline, f"{state_of(cluster, run_id)}, attempt {tried}"
        time.sleep(0.01)


@pytest.fixture
def not_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be placed yet is not tried again before a test says so by :func:`at_once`."""
    later = placing.Later

    def in_an_hour(seconds: float = 0.0) -> placing.Later:
        return later(3_600 if seconds else 0.0)

    monkeypatch.setattr(placing, "Later", in_an_hour)


def at_once(cluster: Cluster, run_id: RunId) -> None:
    """As if the delay were over."""
    cluster.bench.connection.execute(
        "UPDATE graphwright.run_queue SET not_before = now() WHERE run_id = %s", (run_id,)
    )


def engine_events(cluster: Cluster, run_id: RunId) -> list[str]:
    rows = cluster.bench.connection.execute(
        "SELECT event::json -> 'dagster_event' ->> 'message' AS told FROM event_logs"
        " WHERE run_id = %s AND dagster_event_type = 'ENGINE_EVENT' ORDER BY id",
        (run_id,),
    )
    return [row["told"] for row in rows]


def take_over(cluster: Cluster, run_id: RunId) -> None:
    """As if the run's lease were over."""
    row = cluster.bench.row(run_id)

    async def work() -> None:
        async with await async_connect(cluster.bench.settings.database_url) as connection:
            assert run_id in await taking_over.take_over(connection, 60, [], [str(row["worker"])])

    with ThreadPoolExecutor(1) as threads:  # this one may have an event loop already
        threads.submit(lambda: asyncio.run(work())).result()
