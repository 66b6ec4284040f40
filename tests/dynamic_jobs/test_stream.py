"""Live streams: every event once and in order, whatever Redis does to the messages."""

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from dagster import DagsterEventType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_jobs.reading.event_log import read_events
from dynamic_jobs.reading.events import RunEvent, channel_of
from dynamic_jobs.reading.stream import ShuttingDown, StreamHub, cancel
from dynamic_jobs.reading.stream_tail import SlowClient
from foundation.database import AsyncPool, async_pool, connect
from foundation.errors import NotFound
from foundation.ids import RunId, TenantId, new_id
from foundation.redis import AsyncRedis, async_redis
from graphwright.embedded import EmbeddedValkey
from tests.dynamic_jobs.run_rows import ACME, RunRows, entry, line, ran

pytestmark = pytest.mark.anyio

WAITING = """
SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
    async with StreamHub(pool, redis) as opened:
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
        async with asyncio.timeout(10), self._got:
            await self._got.wait_for(lambda: len(self.events) >= count)

    async def ended(self) -> Sequence[RunEvent]:
        async with asyncio.timeout(10):
            await self.task
        return self.events


async def watched(redis: AsyncRedis, rows: RunRows, count: int = 1) -> None:
    """Wait until the run's channel has ``count`` subscribers: from then on messages arrive."""
    channel = channel_of(rows.run_id)
    async with asyncio.timeout(10):
        while dict(await redis.pubsub_numsub(channel)) != {channel: count}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


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
    async with StreamHub(pool, redis, silence_seconds=3600) as hub:
        client = Client(hub, rows)
        await watched(redis, rows)
        rows.run_whole()
        assert await client.ended() == rows.events


async def test_a_finished_run_is_told_from_any_point(hub: StreamHub, database_url: str) -> None:
    rows = RunRows(database_url)
    rows.run_whole()
    for position, after in enumerate([0, *(int(event["id"]) for event in rows.events)]):
        assert await Client(hub, rows, after).ended() == rows.events[position:]


async def test_resuming_a_run_under_way_misses_and_repeats_nothing(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url, nodes=("a",))
    rows.write(entry(DagsterEventType.RUN_ENQUEUED), entry(DagsterEventType.RUN_START))
    rows.write(*ran("a"))
    starts = [0, *(int(event["id"]) for event in rows.events)]
    clients = [Client(hub, rows, after) for after in starts]
    await watched(redis, rows)
    rows.succeed()
    for position, client in enumerate(clients):
        assert await client.ended() == rows.events[position:]


async def test_a_history_of_many_pages(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    rows.write(*(line("a", str(number)) for number in range(2_500)))
    client = Client(hub, rows)
    await client.has(2_500)
    rows.succeed()
    assert await client.ended() == rows.events


async def test_pages_say_whether_more_may_follow(pool: AsyncPool, database_url: str) -> None:
    rows = RunRows(database_url)
    rows.run_whole()
    total = len(rows.events)
    async with pool.connection() as connection:
        whole = await read_events(connection, ACME, rows.run_id, 0, total)
        assert (list(whole.events), whole.full, whole.ended) == (rows.events, False, True)
        part = await read_events(connection, ACME, rows.run_id, 0, total - 1)
        assert (list(part.events), part.full, part.ended) == (rows.events[:-1], True, False)
        assert part.last_id == int(rows.events[-2]["id"])
        past = await read_events(connection, ACME, rows.run_id, whole.last_id, 1)
        assert (list(past.events), past.last_id, past.ended) == ([], whole.last_id, True)


async def test_nothing_follows_the_terminal_event(
    hub: StreamHub, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    client = Client(hub, rows)
    await watched(redis, rows)
    late = [entry(DagsterEventType.RUN_CANCELED), line("a", "late"), *ran("a")]
    rows.write(*late)
    rows.write(entry(DagsterEventType.RUN_CANCELED))
    assert await client.ended() == rows.events[:1]
    assert await Client(hub, rows).ended() == rows.events[:1]
    assert await Client(hub, rows, int(rows.events[0]["id"])).ended() == []


async def test_lost_messages_are_read_from_postgresql(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    """The next message shows the gap: its ``prev`` is not the last id that was given out."""
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, redis, silence_seconds=3600) as hub:
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
    suppress_health_check=[HealthCheck.function_scoped_fixture],
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
            StreamHub(pool, redis, silence_seconds=0.2) as hub,
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
    async with async_redis(url) as redis, StreamHub(pool, redis) as hub:
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
    async with async_redis(f"unix://{tmp_path}/none.sock") as redis, StreamHub(pool, redis) as hub:
        client = Client(hub, rows)
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        await client.has(1)
        rows.succeed()
        assert await client.ended() == rows.events


async def test_a_client_that_does_not_take_its_events_is_cut_and_resumes(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, redis, inbox_events=10) as hub:
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
    async with StreamHub(pool, redis, inbox_events=10) as hub:
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
    async with async_pool(database_url, size=1) as pool, StreamHub(pool, redis) as hub:
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
        async with pool.connection(timeout=10) as connection:
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
    async with StreamHub(pool, redis) as hub:
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


async def test_postgresql_away_and_back(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    """Connections are cut in the middle; the stream goes on without its client noticing."""
    rows = RunRows(database_url, redis_url)
    async with StreamHub(pool, redis, silence_seconds=0.2) as hub:
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
