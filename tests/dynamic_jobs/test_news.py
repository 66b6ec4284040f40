"""Who follows all runs of a tenant hears of new ones, though no worker has begun them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.many import ManyRuns, Wanted
from dynamic_jobs.creating.news import News
from dynamic_jobs.creating.whole_batches import Asked
from dynamic_jobs.reading.events import tenant_channel_of
from dynamic_jobs.reading.many_position import Position
from dynamic_jobs.reading.many_tail import Chunk
from dynamic_jobs.reading.stream import StreamHub
from dynamic_jobs.storage.publisher import Publisher
from foundation.database import AsyncPool, async_pool
from foundation.ids import GraphId, TenantId
from foundation.redis import AsyncRedis, async_redis
from foundation.tenant_pool import TenantPool
from graphwright.embedded import EmbeddedValkey
from tests.dynamic_jobs.conftest import TENANT, Bench
from tests.dynamic_jobs.stream_client import subscribed
from tests.dynamic_jobs.test_launching import creator_of, publish, trigger

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def own_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    yield server.start()
    server.stop()


@pytest.fixture
def redis_url(own_redis_url: str) -> str:
    """Of these tests' own: in the shared one, tenants of these names have news of other tests."""
    return own_redis_url


@pytest.fixture
async def pool(bench: Bench) -> AsyncIterator[AsyncPool]:
    async with async_pool(bench.settings.database_url, size=4) as pool:
        yield pool


@pytest.fixture
async def redis(bench: Bench) -> AsyncIterator[AsyncRedis]:
    async with async_redis(bench.settings.redis_url) as client:
        yield client


@asynccontextmanager
async def following(pool: AsyncPool, redis: AsyncRedis) -> AsyncGenerator[AsyncIterator[str]]:
    """The ids of runs that are queued, by a stream that does not look round of itself."""

    async def queued(items: AsyncGenerator[Position | Chunk]) -> AsyncGenerator[str]:
        async for chunk in items:
            assert not isinstance(chunk, Position)
            for each in chunk:
                assert each.event["type"] == "run.queued"
                yield each.event["run_id"]

    async with (
        StreamHub(pool, TenantPool(pool), redis, silence_seconds=3_600) as hub,
        aclosing(hub.many.follow(TENANT, None, hub.many.inbox())) as items,
    ):
        assert isinstance(await anext(items), Position)
        await subscribed(redis, tenant_channel_of(TENANT))
        async with aclosing(queued(items)) as runs:
            yield runs


async def test_runs_that_are_triggered(bench: Bench, pool: AsyncPool, redis: AsyncRedis) -> None:
    await publish(pool)
    creator = creator_of(bench, pool)
    async with asyncio.timeout(60), following(pool, redis) as runs:
        one = await creator.start(TENANT, "tested", trigger())
        assert await anext(runs) == one.run_id
        batch = await creator.start_all(TENANT, [Asked("tested", trigger())] * 2)
        assert {await anext(runs), await anext(runs)} == {each.run_id for each in batch}
    await creator.close()


async def test_runs_of_dispatchers(bench: Bench, pool: AsyncPool, redis: AsyncRedis) -> None:
    wanted = Wanted(TENANT, GraphId(await publish(pool)), trigger())
    many = ManyRuns(pool, bench.storage, Compiler(bench.runtime), bench.runtime)
    async with asyncio.timeout(60), following(pool, redis) as runs:
        async with pool.connection() as connection, connection.transaction():
            made = await many.create_many(connection, [wanted], quickly=False)
        many.settle(made)
        assert [await anext(runs)] == made.run_ids
    await many.close()


async def test_one_message_for_all_that_come_meanwhile(bench: Bench, redis: AsyncRedis) -> None:
    publisher = Publisher(bench.settings.redis_url)
    news = News(publisher)
    async with redis.pubsub() as heard:
        tenants = [TenantId("a"), TenantId("b")]
        await heard.subscribe(*map(tenant_channel_of, tenants), "end")
        for _ in range(100):
            news.tell(tenants[:1])
        news.tell(tenants)
        await news.close()
        await redis.publish("end", "")
        channels: list[str] = []
        async with asyncio.timeout(60):
            while "end" not in channels:
                message: dict[str, Any] | None = await heard.get_message(True, timeout=60)  # pyright: ignore
                channels += [message["channel"]] if message else []
    publisher.close()
    assert sorted(channels[:-1]) == [tenant_channel_of(tenant) for tenant in tenants]
