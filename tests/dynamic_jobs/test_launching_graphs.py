"""Creating runs: what a process remembers of graphs, and whom it wakes."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import pytest

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.queueing.waking import WAKE_CHANNEL
from foundation.database import AsyncPool, async_pool, connect
from foundation.errors import Invalid, NotFound
from foundation.ids import RunId, TenantId, new_id
from foundation.tenant_pool import TenantPool
from graph_defs.store import GraphStore
from tests.dynamic_jobs.conftest import TENANT, Bench
from tests.dynamic_jobs.test_launching import (
    TABLES,
    creator_of,
    publish,
    read_by_dagster,
    snapshot_ids,
    start,
    stored,
    trigger,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pool(bench: Bench) -> AsyncGenerator[AsyncPool]:
    async with async_pool(bench.settings.database_url, size=4) as pool:
        yield pool


@pytest.fixture
async def creator(bench: Bench, pool: AsyncPool) -> AsyncGenerator[RunCreator]:
    creator = creator_of(bench, pool)
    yield creator
    await creator.close()


async def test_what_is_published_now_is_what_runs(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    def takes(name: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: {"type": "integer"}},
            "additionalProperties": False,
        }

    graph_id = await publish(pool, takes("x"))

    async def version_of(run: Coroutine[Any, Any, RunId]) -> int:
        version_id = str(bench.row(await run)["graph_version_id"])
        row = bench.connection.execute(
            "SELECT version FROM graphwright.graph_versions WHERE graph_version_id = %s",
            (version_id,),
        ).fetchone()
        assert row is not None
        return row["version"]

    for name in ("tested", graph_id):
        assert await version_of(start(creator, name, params={"x": 1})) == 1
    await publish(pool, takes("y"))
    for name in ("tested", graph_id):
        assert await version_of(start(creator, name)) == 2
        assert await version_of(start(creator, name, params={"y": 1})) == 2
    await publish(pool, takes("x"))
    for name in ("tested", graph_id):
        assert await version_of(start(creator, name, params={"x": 1})) == 1, "as remembered before"
        with pytest.raises(Invalid):
            await start(creator, name, params={"y": 1})
    with connect(bench.settings.database_url) as connection:
        connection.execute("UPDATE graphwright.graphs SET name = 'renamed'")
    with pytest.raises(NotFound):
        await start(creator, "tested")
    assert await version_of(start(creator, graph_id)) == 1


async def test_another_tenant_has_no_use_of_what_is_remembered(
    pool: AsyncPool, creator: RunCreator
) -> None:
    graph_id = await publish(pool)
    await start(creator)
    for name in ("tested", graph_id):
        with pytest.raises(NotFound):
            await creator.start(TenantId("other"), name, trigger())


async def test_a_version_that_is_not_published_can_be_run(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    version = await GraphStore(TenantPool(pool)).published(TENANT, "tested")
    await publish(pool, {"type": "object", "title": "another"})
    run_id = await creator.create(version, {}, {"type": "rest"}, "ann")
    assert str(bench.row(run_id)["graph_version_id"]) == version.graph_version_id


async def test_a_graph_that_has_run_is_not_compiled_to_start_it(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    before = await start(creator)
    compiler = Compiler(bench.runtime)
    after = await start(creator_of(bench, pool, compiler))
    version = await GraphStore(TenantPool(pool)).published(TENANT, "tested")
    assert compiler.cached(version.graph_version_id) is None
    first, second = (snapshot_ids(read_by_dagster(bench, run_id)) for run_id in (before, after))
    assert first == second


async def test_first_triggers_at_once(bench: Bench, pool: AsyncPool, creator: RunCreator) -> None:
    await publish(pool)
    made = await asyncio.gather(*(start(creator) for _ in range(20)))
    assert stored(bench) == [set(made)] * len(TABLES)


async def test_only_an_idle_worker_is_woken_and_once_a_batch(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    connection = bench.connection
    connection.execute(f"LISTEN {WAKE_CHANNEL}")

    async def heard() -> list[str]:
        """What comes until a message of our own."""
        connection.execute("SELECT pg_notify(%s, 'end')", (WAKE_CHANNEL,))
        said: list[str] = []
        for notice in connection.notifies():
            if notice.payload == "end":
                return said
            said.append(notice.payload)
        raise AssertionError

    await start(creator)
    assert await heard() == []
    connection.execute(
        "INSERT INTO graphwright.workers (worker, host, pid, pool, idle)"
        " VALUES (%s, 'h', 1, 1, true)",
        (new_id(),),
    )
    await asyncio.gather(*(start(creator) for _ in range(5)))
    assert await heard() == [""]


async def test_a_graph_that_was_used_just_now_is_left_alone(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    def used() -> dict[str, Any]:
        row = bench.connection.execute(
            "SELECT used_at, xmin::text, xmax::text FROM graphwright.recent_graphs"
        ).fetchone()
        assert row is not None
        return row

    await publish(pool)
    before = used()
    await asyncio.gather(start(creator), start(creator))
    assert used() == before, "not even locked"
    bench.connection.execute("UPDATE graphwright.recent_graphs SET used_at = '2020-01-01T00:00Z'")
    await asyncio.gather(start(creator), start(creator))
    assert used()["used_at"] > before["used_at"]


async def test_a_lock_on_one_graph_holds_nobody_up(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    bench.connection.execute("UPDATE graphwright.recent_graphs SET used_at = '2020-01-01T00:00Z'")
    with connect(bench.settings.database_url) as other, other.transaction():
        other.execute("SELECT FROM graphwright.recent_graphs FOR UPDATE")
        async with asyncio.timeout(30):
            await start(creator)
