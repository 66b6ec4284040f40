"""Followers of a run's stream for tests, and what streams stand on: pools, Redis, a hub."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from dynamic_jobs.reading.events import RunEvent, channel_of
from dynamic_jobs.reading.stream import StreamHub
from foundation.database import AsyncPool, async_pool
from foundation.ids import RunId, TenantId
from foundation.redis import AsyncRedis, async_redis
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.run_rows import RunRows


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncPool]:
    async with async_pool(database_url, size=4) as opened:
        yield opened


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[AsyncRedis]:
    async with async_redis(redis_url) as client:
        yield client


@pytest.fixture
async def hub(pool: AsyncPool, redis: AsyncRedis) -> AsyncIterator[StreamHub]:
    async with StreamHub(pool, TenantPool(pool), redis) as opened:
        yield opened


class Client:
    """Follows a run in a task of its own and keeps what it got."""

    def __init__(self, hub: StreamHub, rows: RunRows, after: int = 0) -> None:
        self.events: list[RunEvent] = []
        self._got = asyncio.Condition()
        self.task = asyncio.create_task(self._follow(hub, rows.tenant, rows.run_id, after))

    async def _follow(self, hub: StreamHub, tenant: TenantId, run_id: RunId, after: int) -> None:
        async with aclosing(hub.follow(tenant, run_id, after)) as batches:
            async for batch in batches:
                async with self._got:
                    self.events += batch
                    self._got.notify_all()

    async def has(self, count: int) -> None:
        async with asyncio.timeout(30), self._got:
            await self._got.wait_for(lambda: len(self.events) >= count)

    async def ended(self) -> Sequence[RunEvent]:
        async with asyncio.timeout(30):
            await self.task
        return self.events


async def watched(redis: AsyncRedis, rows: RunRows, count: int = 1) -> None:
    """Wait until the run's channel has ``count`` subscribers: from then on messages arrive."""
    await subscribed(redis, channel_of(rows.run_id), count)


async def subscribed(redis: AsyncRedis, channel: str, count: int = 1) -> None:
    """:func:`watched` for any channel. All tests share them: only those of fresh ids are ours."""
    async with asyncio.timeout(30):
        while dict(await redis.pubsub_numsub(channel)) != {channel: count}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
