"""Those who follow a run: slow ones, many, ones that leave, and those who may not."""

import asyncio
from contextlib import aclosing

import anyio
import pytest
from dagster import DagsterEventType

from dynamic_jobs.reading.stream import ShuttingDown, StreamHub
from dynamic_jobs.reading.stream_inbox import SlowClient
from foundation.database import AsyncPool, async_pool, connect
from foundation.errors import NotFound
from foundation.ids import RunId, TenantId, new_id
from foundation.redis import AsyncRedis
from foundation.tasks import cancel
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.run_rows import ACME, RunRows, entry, line, ran
from tests.dynamic_jobs.stream_client import Client, hub, pool, redis, watched

__all__ = ["hub", "pool", "redis"]

pytestmark = pytest.mark.anyio

WAITING = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_a_client_that_does_not_take_its_events_is_cut_and_resumes(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, TenantPool(pool), redis, inbox_events=10) as hub:
        fast = Client(hub, rows)
        await watched(redis, rows)
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        async with aclosing(hub.follow(ACME, rows.run_id, 0)) as slow:
            got = list(await anext(slow))
            for _ in range(2):  # the first comes from its history, the second is pushed
                rows.write(line("a", "taken"))
                await fast.has(len(rows.events))
                got += await anext(slow)
            for number in range(11):
                rows.write(line("a", str(number)))
                await fast.has(len(rows.events))
            with pytest.raises(SlowClient):
                await anext(slow)
        assert got == rows.events[:3]
        rows.succeed()
        resumed = Client(hub, rows, int(got[-1]["id"]))
        assert [*got, *await resumed.ended()] == rows.events
        assert await fast.ended() == rows.events


async def test_who_reads_history_slowly_is_not_cut(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    """What overflows before the history is read through comes from PostgreSQL."""
    rows = RunRows(database_url, redis_url)
    rows.write(*(line("a", str(number)) for number in range(1_500)))
    async with StreamHub(pool, TenantPool(pool), redis, inbox_events=10) as hub:
        async with aclosing(hub.follow(ACME, rows.run_id, 0)) as slow:
            got = list(await anext(slow))
            rows.write(*ran("a"))
            got += await anext(slow)
            fast = Client(hub, rows)
            for _ in range(8):
                rows.write(*ran("b"))
            await fast.has(len(rows.events))
            rows.succeed()
            async for batch in slow:
                got += batch
        assert got == rows.events


async def test_a_client_that_leaves_in_the_middle_of_a_read_costs_no_connection(
    redis: AsyncRedis, database_url: str
) -> None:
    """Cancelled as the server cancels: anew at every await, until the stream has ended."""
    rows = RunRows(database_url)
    rows.write(entry(DagsterEventType.RUN_ENQUEUED))
    async with (
        async_pool(database_url, size=1) as pool,
        StreamHub(pool, TenantPool(pool), redis) as hub,
    ):
        for _ in range(3):
            with (
                connect(database_url) as observer,
                connect(database_url) as other,
                other.transaction(),
            ):
                other.execute("LOCK TABLE graphwright.runs")
                async with anyio.create_task_group() as group:
                    group.start_soon(anext, hub.follow(ACME, rows.run_id, 0))
                    while not observer.execute(WAITING).fetchall():  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                    group.cancel_scope.cancel()
        async with pool.connection(timeout=60) as connection:
            await connection.execute("SELECT 1")


async def test_other_tenants_and_unknown_runs(hub: StreamHub, database_url: str) -> None:
    rows = RunRows(database_url)
    for tenant, run_id in ((TenantId("other"), rows.run_id), (ACME, RunId(new_id()))):
        with pytest.raises(NotFound):
            await anext(hub.follow(tenant, run_id, 0))


async def test_closing_ends_every_stream(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, TenantPool(pool), redis) as hub:
        clients = [Client(hub, rows) for _ in range(3)]
        await watched(redis, rows)
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        for client in clients:
            await client.has(1)
    for client in clients:
        with pytest.raises(ShuttingDown):
            await client.ended()
        assert client.events == rows.events
    with pytest.raises(ShuttingDown):
        await Client(hub, rows).ended()
    await watched(redis, rows, 0)


async def test_many_followers_share_one_subscription(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    stay, *leave = [Client(hub, rows) for _ in range(20)]
    await watched(redis, rows, 1)
    await cancel(*(client.task for client in leave))
    rows.run_whole()
    assert await stay.ended() == rows.events
    await watched(redis, rows, 0)


async def test_a_run_that_nobody_follows_any_more_can_be_followed_again(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    for _ in range(30):
        client = Client(hub, rows)
        await asyncio.sleep(0)
        await cancel(client.task)
    client = Client(hub, rows)
    await watched(redis, rows)
    rows.run_whole()
    assert await client.ended() == rows.events
