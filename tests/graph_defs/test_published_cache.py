"""The cache of published documents against a real Redis, and without one."""

from collections.abc import AsyncGenerator

import pytest

from foundation.ids import GraphId, TenantId, new_id
from foundation.redis import AsyncRedis, async_redis
from graph_defs.published_cache import PublishedCache
from tests.services import free_port

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")


@pytest.fixture
async def redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[AsyncRedis]:
    """One for which the cache has all the time of the world."""
    monkeypatch.setattr("graph_defs.published_cache._PATIENCE_SECONDS", 60)
    async with async_redis(redis_url) as client:
        yield client


class Database:
    """Counts how often it is asked."""

    def __init__(self, document: str) -> None:
        self.asked = 0
        self._document = document

    async def __call__(self) -> str:
        self.asked += 1
        return self._document


async def test_it_is_read_once(redis: AsyncRedis) -> None:
    text = '{"n":1.50,"text":"\N{SNOWMAN}"}'
    database, graph_id = Database(text), GraphId(new_id())
    for _ in range(3):
        assert await PublishedCache(redis).document(ACME, graph_id, 1, database) == text
    assert database.asked == 1
    assert await PublishedCache(redis).document(TenantId("other"), graph_id, 1, database)
    assert database.asked == 2
    assert 0 < await redis.ttl(f"graphwright:published:acme:{graph_id}") <= 3_600


async def test_another_version_is_none_of_it(redis: AsyncRedis) -> None:
    """Also not one whose number begins alike; and who is late with an old one harms nobody."""
    cache, graph_id = PublishedCache(redis), GraphId(new_id())
    for version in (1, 12, 1, 2):
        database = Database(f"[{version}]")
        found = await cache.document(ACME, graph_id, version, database)
        assert (found, database.asked) == (f"[{version}]", 1)


async def test_short_ones_are_at_hand(redis: AsyncRedis) -> None:
    cache, short, long = PublishedCache(redis), Database("{}"), Database(f'"{"x" * 2**15}"')
    of_short, of_long = GraphId(new_id()), GraphId(new_id())
    await cache.document(ACME, of_short, 1, short)
    await cache.document(ACME, of_long, 1, long)
    await redis.flushdb()
    await cache.document(ACME, of_short, 1, short)
    await cache.document(ACME, of_long, 1, long)
    assert (short.asked, long.asked) == (1, 2)
    assert await cache.document(TenantId("other"), of_short, 1, short)
    assert short.asked == 2


async def test_what_is_large_is_not_kept(redis: AsyncRedis) -> None:
    database, graph_id = Database(f'"{"x" * 2**20}"'), GraphId(new_id())
    for _ in range(2):
        await PublishedCache(redis).document(ACME, graph_id, 1, database)
    assert database.asked == 2


async def test_forgotten(redis: AsyncRedis) -> None:
    database, graph_id = Database("{}"), GraphId(new_id())
    await PublishedCache(redis).document(ACME, graph_id, 1, database)
    await PublishedCache(redis).forget(ACME, graph_id)
    await PublishedCache(redis).document(ACME, graph_id, 1, database)
    assert database.asked == 2


async def test_without_redis() -> None:
    async with async_redis(f"redis://127.0.0.1:{free_port()}") as away:
        cache, database = PublishedCache(away), Database('{"n":1}')
        for _ in range(3):
            assert await cache.document(ACME, GraphId(new_id()), 1, database) == '{"n":1}'
        await cache.forget(ACME, GraphId(new_id()))
        assert database.asked == 3
