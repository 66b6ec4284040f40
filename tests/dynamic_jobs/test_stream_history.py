"""Live streams begin with what is stored: from any point, page by page, up to the end."""

import pytest
from dagster import DagsterEventType

from dynamic_jobs.reading.event_log import read_events
from dynamic_jobs.reading.stream import StreamHub
from foundation.database import AsyncPool
from foundation.redis import AsyncRedis
from tests.dynamic_jobs.run_rows import ACME, RunRows, entry, line, ran
from tests.dynamic_jobs.stream_client import Client, hub, pool, redis, watched

__all__ = ["hub", "pool", "redis"]

pytestmark = pytest.mark.anyio


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
