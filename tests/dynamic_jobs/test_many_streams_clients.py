"""Clients of streams of many runs: how they resume, are cut, and are told that it is over."""

import asyncio
from contextlib import aclosing

import pytest
from dagster import DagsterEventType
from dagster._serdes import serialize_value

from dynamic_jobs.reading.event_log import BadEventId
from dynamic_jobs.reading.many_position import Position, position_of
from dynamic_jobs.reading.stream import ShuttingDown, StreamHub
from dynamic_jobs.reading.stream_inbox import SlowClient
from foundation.database import AsyncPool, connect
from foundation.redis import AsyncRedis
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.many_client import INSERT, Client, Writing, databases, hub, write
from tests.dynamic_jobs.run_rows import ACME, RunRows, entry, line
from tests.dynamic_jobs.stream_client import pool, redis

__all__ = ["databases", "hub", "pool", "redis"]

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("many streams")]  # a server a module


async def test_resuming_at_each_place(hub: StreamHub, database_url: str) -> None:
    runs = [RunRows(database_url, graph=f"g{number}") for number in range(3)]
    first = Client()
    await first.connect(hub)
    start = first.after
    for number in range(4):
        writing = Writing(database_url)
        for rows in runs:
            writing.write(rows, f"{number}", f"{number} again")
        writing.commit()
        write(runs[number % 3], f"{number} alone")
    whole = await first.has(28)
    for place, after in enumerate([start, *(each.position for each in first.got)]):
        late = Client(after=after)
        await late.connect(hub)
        assert await late.has(28 - place) == whole[place:]
        await late.leave()
    await first.leave()


async def test_nothing_follows_a_runs_end(hub: StreamHub, database_url: str) -> None:
    rows = RunRows(database_url)
    client = Client()
    await client.connect(hub)
    rows.succeed({"n": 1})
    with connect(database_url) as connection:
        late = serialize_value(line("a", "late")._replace(run_id=rows.run_id))
        connection.execute(INSERT, (rows.run_id, late))
    other = RunRows(database_url, graph="second")
    other.write(entry(DagsterEventType.RUN_START))
    async with asyncio.timeout(30):
        while len(client.got) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert [each.event for each in client.got] == [*rows.events, *other.events]
    await client.leave()


async def test_a_history_of_many_pages(
    hub: StreamHub, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tail itself reads what is more than a page in parts; who comes then waits for its end."""
    monkeypatch.setattr("dynamic_jobs.reading.many_stream.PAGE_EVENTS", 7)
    runs = [RunRows(database_url, graph=f"g{number}") for number in range(3)]
    client = Client()
    await client.connect(hub)
    start = client.after
    writing = Writing(database_url)
    for number in range(60):
        writing.write(runs[number % 3], str(number))
    writing.commit()
    numbers = [str(number) for number in range(60)]
    for place in (0, 1, 7, 30, 59):
        assert await client.has(60) == numbers
        late = Client(after=client.got[place].position)
        await late.connect(hub)
        assert await late.has(59 - place) == numbers[place + 1 :]
        await late.leave()
    late = Client(after=start)
    await late.connect(hub)
    assert await late.has(60) == numbers
    await late.leave()
    await client.leave()


async def test_who_resumes_gets_a_short_page_first(
    hub: StreamHub, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_jobs.reading.many_stream.PAGE_EVENTS", 7)
    monkeypatch.setattr("dynamic_jobs.reading.many_stream.FIRST_PAGE_EVENTS", 2)
    rows = RunRows(database_url)
    client = Client()
    await client.connect(hub)
    start = client.after
    writing = Writing(database_url)
    for number in range(20):
        writing.write(rows, str(number))
    writing.commit()
    await client.has(20)
    sizes: list[int] = []
    async with aclosing(hub.many.follow(ACME, start, hub.many.inbox())) as items:
        async for item in items:
            if not isinstance(item, Position):
                sizes.append(len(item))
            if sum(sizes) == 20:
                break
    assert sizes == [2, 7, 7, 4]
    await client.leave()


async def test_a_slow_client_is_cut_and_resumes(
    pool: AsyncPool, redis: AsyncRedis, database_url: str
) -> None:
    rows = RunRows(database_url)
    tenants = TenantPool(pool)
    async with StreamHub(pool, tenants, redis, inbox_events=5, silence_seconds=0.05) as hub:
        fast = Client()
        await fast.connect(hub)
        async with aclosing(hub.many.follow(ACME, None, hub.many.inbox())) as slow:
            start = await anext(slow)
            assert isinstance(start, Position)
            write(rows, "0")
            await anext(slow)  # it has come to what is new
            for number in range(1, 8):
                write(rows, str(number))
                await fast.has(number + 1)
            with pytest.raises(SlowClient):
                await anext(slow)
        resumed = Client(after=start)
        await resumed.connect(hub)
        assert await resumed.has(8) == fast.lines
        await resumed.leave()
        await fast.leave()


async def test_places_that_never_were(hub: StreamHub, database_url: str) -> None:
    RunRows(database_url)
    future = Position(0, 2**61, 2**61, 0)
    with pytest.raises(BadEventId):
        await anext(hub.many.follow(ACME, future, hub.many.inbox()))
    for text in ("", "1", "1-2-3", "1-3-2-4", "1-2-3-x", "1-2-3-4-5", f"1-2-3-{10**18}"):
        with pytest.raises(BadEventId):
            position_of(text)


async def test_closing_ends_every_stream(hub: StreamHub, database_url: str) -> None:
    RunRows(database_url)
    many = hub.many
    async with aclosing(many.follow(ACME, None, many.inbox())) as items:
        await anext(items)
        await hub.close()
        with pytest.raises(ShuttingDown):
            await anext(items)
    with pytest.raises(ShuttingDown):
        await anext(many.follow(ACME, None, many.inbox()))


async def test_postgresql_away_and_back(hub: StreamHub, database_url: str) -> None:
    rows = RunRows(database_url)
    client = Client()
    await client.connect(hub)
    for number in range(5):
        with connect(database_url) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        write(rows, str(number))
        await client.has(number + 1)
    assert client.lines == list("01234")
    await client.leave()
