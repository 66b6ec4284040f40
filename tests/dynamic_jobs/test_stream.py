"""Live streams: every event once and in order, whatever Redis does to the messages."""

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest
from dagster import DagsterEventType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_jobs.reading.stream import StreamHub
from foundation.database import AsyncPool, async_pool, connect
from foundation.ids import new_id
from foundation.redis import AsyncRedis, async_redis
from foundation.tenant_pool import TenantPool
from graphwright.embedded import EmbeddedValkey
from tests.dynamic_jobs.run_rows import RunRows, entry, line, ran
from tests.dynamic_jobs.stream_client import Client, hub, pool, redis, watched

__all__ = ["hub", "pool", "redis"]

pytestmark = pytest.mark.anyio


async def test_a_whole_run_as_it_happens(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    client = Client(hub, rows)
    await watched(redis, rows)
    rows.write(entry(DagsterEventType.RUN_ENQUEUED))
    await client.has(1)
    rows.write(entry(DagsterEventType.RUN_START))
    await client.has(2)
    rows.write(*ran("a"))
    await client.has(6)
    assert not client.task.done()
    rows.succeed({"n": 1})
    assert await client.ended() == rows.events
    assert client.events[-1]["data"] == {"outputs": {"n": 1}}
    await watched(redis, rows, 0)


async def test_events_are_pushed_not_polled(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, TenantPool(pool), redis, silence_seconds=3600) as hub:
        client = Client(hub, rows)
        await watched(redis, rows)
        rows.run_whole()
        assert await client.ended() == rows.events


async def test_lost_messages_are_read_from_postgresql(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    """The next message shows the gap: its ``prev`` is not the last id that was given out."""
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, TenantPool(pool), redis, silence_seconds=3600) as hub:
        client = Client(hub, rows)
        await watched(redis, rows)
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        await client.has(1)
        rows.write(entry(DagsterEventType.RUN_START), publish=False)
        rows.write(*ran("a"))
        await client.has(6)
        rows.succeed()
        assert await client.ended() == rows.events


async def test_a_lost_terminal_message_is_noticed_by_the_silence(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    client = Client(hub, rows)
    await watched(redis, rows)
    rows.write(*ran("a"))
    await client.has(4)
    rows.succeed(publish=False)
    assert await client.ended() == rows.events


MESSAGES = 6


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(deliveries=st.lists(st.integers(0, MESSAGES - 1), max_size=2 * MESSAGES))
def test_messages_lost_repeated_and_reordered(
    deliveries: list[int], database_url: str, redis_url: str
) -> None:
    async def scenario() -> None:
        rows = RunRows(database_url, redis_url, graph=f"g-{new_id()[-12:]}")
        async with (
            async_pool(database_url, size=2) as pool,
            async_redis(redis_url) as redis,
            StreamHub(pool, TenantPool(pool), redis, silence_seconds=0.2) as hub,
        ):
            client, late = Client(hub, rows), None
            await watched(redis, rows)
            messages = [rows.write(*ran("a"), publish=False) for _ in range(MESSAGES - 1)]
            messages.append(rows.succeed(publish=False))
            for number in deliveries:
                late = late or Client(hub, rows)
                rows.publish(messages[number])
            assert await client.ended() == rows.events
            if late is not None:
                assert await late.ended() == rows.events

    asyncio.run(scenario())


async def test_what_is_no_message_breaks_nothing(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    client = Client(hub, rows)
    await watched(redis, rows)
    rows.publish("{", "[]", '{"prev": "x"}')
    rows.write(*ran("a"))
    rows.succeed()
    assert await client.ended() == rows.events


@pytest.fixture
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[EmbeddedValkey]:
    """A Valkey of this test's own, to be killed."""
    server = EmbeddedValkey(Path(tmp_path_factory.mktemp("valkey")))
    yield server
    server.stop()


async def test_redis_away_and_back(
    pool: AsyncPool, own_valkey: EmbeddedValkey, database_url: str
) -> None:
    url = own_valkey.start()
    rows = RunRows(database_url, url)
    async with async_redis(url) as redis, StreamHub(pool, TenantPool(pool), redis) as hub:
        client = Client(hub, rows)
        await watched(redis, rows)
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        await client.has(1)

        own_valkey.stop()
        rows.write(entry(DagsterEventType.RUN_START), publish=False)
        await client.has(2)
        newcomer = Client(hub, rows)
        await newcomer.has(2)

        assert own_valkey.start() == url
        await watched(redis, rows)
        rows.write(*ran("a"))
        await client.has(6)
        rows.succeed()
        assert await client.ended() == rows.events
        assert await newcomer.ended() == rows.events


async def test_redis_was_never_there(pool: AsyncPool, tmp_path: Path, database_url: str) -> None:
    rows = RunRows(database_url)
    async with (
        async_redis(f"unix://{tmp_path}/none.sock") as redis,
        StreamHub(pool, TenantPool(pool), redis) as hub,
    ):
        client = Client(hub, rows)
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        await client.has(1)
        rows.succeed()
        assert await client.ended() == rows.events


async def test_postgresql_away_and_back(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    """Connections are cut in the middle; the stream goes on without its client noticing."""
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, TenantPool(pool), redis, silence_seconds=0.2) as hub:
        client = Client(hub, rows)
        await watched(redis, rows)
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        await client.has(1)
        for _ in range(5):
            _cut_connections(database_url)
            rows.write(line("a", "unheard"), publish=False)
            rows.write(line("a", "heard"))
            await client.has(len(rows.events))
        rows.succeed()
        assert await client.ended() == rows.events


def _cut_connections(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
