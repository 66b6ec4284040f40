"""What the tests of runs share: a Dagster home, published graphs, real runs, a real worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString, TypeVar

import pytest

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.queueing.waking import DELAYED, WAKE_CHANNEL
from dynamic_jobs.storage import GraphwrightStorage
from dynamic_jobs.workers.worker import Worker
from foundation.database import AsyncPool, Connection, async_pool, connect
from foundation.ids import RunId, TenantId
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool
from graph_defs.catalogue import Catalogue
from graph_defs.fingerprint import Canonical
from graph_defs.publishing import Publication
from graph_defs.store import GraphStore
from graph_defs.versions import GraphVersion
from graphwright.home import dagster_environment, enter_dagster_home

T = TypeVar("T")

# Of a run that waits off its workers: what it goes by when it goes on, and when that is.
LET_PASS: Final[tuple[LiteralString, ...]] = (
    "UPDATE event_logs SET timestamp = timestamp - %(time)s WHERE run_id = %(run_id)s::text",
    "UPDATE graphwright.runs SET started_at = started_at - %(time)s WHERE run_id = %(run_id)s",
    "UPDATE graphwright.run_queue SET not_before = not_before - %(time)s"
    " WHERE run_id = %(run_id)s AND state = 'delayed'",
)

TENANT = TenantId("acme")


def graph(nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A graph document of these nodes."""
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": more.pop("name", "tested")},
        "nodes": nodes,
        **more,
    }


def value(expression: Any, *needs: str) -> dict[str, Any]:
    """A node whose output is this value."""
    return {"type": "data.transform", "needs": list(needs), "with": {"value": expression}}


def before_midnight() -> None:
    """Quotas of a day begin anew at midnight, UTC: where that is near, wait until it is over."""
    while (now := datetime.now(UTC)).date() != (now + timedelta(seconds=30)).date():
        time.sleep(0.5)


@dataclass
class Bench:
    """One tenant's graphs and runs, over real PostgreSQL and real Dagster."""

    settings: Settings
    limits: Limits
    runtime: NodeRuntime
    storage: GraphwrightStorage
    connection: Connection
    working: Future[None] | None = None

    def publish(self, document: dict[str, Any]) -> GraphVersion:
        async def work(pool: AsyncPool) -> GraphVersion:
            store = GraphStore(TenantPool(pool))
            await store.ensure_tenant(TENANT)
            types = {node["type"] for node in document["nodes"].values()}
            versions = {name: self.runtime.catalogue[name].version for name in types}
            applied, _ = await store.apply(
                TENANT, Publication(Canonical.of(document), versions, "tester")
            )
            return await store.version(TENANT, applied.graph_id)

        return self.with_pool(work)

    def start(
        self, version: GraphVersion, params: dict[str, Any] | None = None, **more: Any
    ) -> RunId:
        async def work(pool: AsyncPool) -> RunId:
            creator = RunCreator(
                pool, TenantPool(pool), self.storage, Compiler(self.runtime), self.runtime
            )
            return await creator.create(version, params or {}, {"type": "rest"}, "tester", **more)

        return self.with_pool(work)

    def start_many(self, version: GraphVersion, count: int) -> list[RunId]:
        """Runs that are triggered at the same time."""

        async def work(pool: AsyncPool) -> list[RunId]:
            creator = RunCreator(
                pool, TenantPool(pool), self.storage, Compiler(self.runtime), self.runtime
            )
            started = (
                creator.create(version, {}, {"type": "rest"}, "tester") for _ in range(count)
            )
            return await asyncio.gather(*started)

        return self.with_pool(work)

    def row(self, run_id: RunId) -> dict[str, Any]:
        statement = "SELECT * FROM graphwright.runs WHERE tenant = %s AND run_id = %s"
        row = self.connection.execute(statement, (TENANT, run_id)).fetchone()
        assert row is not None
        return row

    def events(self, run_id: RunId) -> list[tuple[str | None, str | None]]:
        """Dagster's event types and step keys, in order."""
        rows = self.connection.execute(
            "SELECT dagster_event_type, step_key FROM event_logs WHERE run_id = %s ORDER BY id",
            (run_id,),
        )
        return [(row["dagster_event_type"], row["step_key"]) for row in rows]

    def wait_for(self, run_id: RunId, *statuses: str, seconds: float = 30) -> dict[str, Any]:
        """The run's row once it has one of these statuses; by default, once it has ended."""
        wanted = statuses or ("succeeded", "failed", "cancelled")
        deadline = time.monotonic() + seconds
        while (row := self.row(run_id))["status"] not in wanted:
            if self.working is not None and self.working.done():
                self.working.result()  # a worker that broke says why
            assert time.monotonic() < deadline, f"still {row['status']}, not {wanted}"
            time.sleep(0.01)
        return row

    def let_pass(self, run_id: RunId, seconds: float) -> None:
        """As if so much time had passed since the run, which waits off its workers, had started.

        So a test gives it a wait that no delay of a process outlasts, and need not sit it out.
        """
        values = {"run_id": run_id, "time": timedelta(seconds=seconds)}
        with self.connection.transaction():
            moved = [self.connection.execute(each, values).rowcount for each in LET_PASS]
        assert moved[-1] == 1, "it does not wait"
        self.connection.execute("SELECT pg_notify(%s, %s)", (WAKE_CHANNEL, DELAYED))

    @contextmanager
    def worker(self, **changes: Any) -> Generator[Worker]:
        """A worker in a thread of this process, stopped gracefully at the end."""
        worker = Worker(self.settings.model_copy(update=changes), self.limits)
        with ThreadPoolExecutor(1) as threads:
            self.working = threads.submit(worker.run)
            try:
                yield worker
            finally:
                worker.stop()
                self.working.result()

    def with_pool(self, work: Callable[[AsyncPool], Awaitable[T]]) -> T:
        async def run() -> T:
            async with async_pool(self.settings.database_url, size=2) as pool:
                return await work(pool)

        return asyncio.run(run())


@contextmanager
def opened(settings: Settings, limits: Limits) -> Generator[Bench]:
    """A bench over these settings; their Dagster home is this process's until the block ends."""
    with pytest.MonkeyPatch.context() as environment:
        for name, text in dagster_environment(settings).items():
            environment.setenv(name, text)
        enter_dagster_home(settings)
        storage = GraphwrightStorage(settings.database_url, settings.redis_url)
        with (
            NodeRuntime(settings, limits, Catalogue.from_packages(node_types)) as runtime,
            connect(settings.database_url) as connection,
        ):
            yield Bench(settings, limits, runtime, storage, connection)
        storage.event_log_storage.dispose()


@pytest.fixture
def bench(settings: Settings, limits: Limits) -> Generator[Bench]:
    with opened(settings, limits) as bench:
        yield bench
