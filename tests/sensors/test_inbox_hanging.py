"""The inbox while PostgreSQL hangs, or is out of reach without a word."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from foundation.database import AsyncConnection, AsyncPool, async_connect, async_pool
from foundation.errors import Unavailable
from sensors.inbox import Inbox
from tests.sensors.test_inbox import arrival, rows

pytestmark = pytest.mark.anyio

_WAITERS = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[AsyncPool]:
    async with async_pool(database_url) as pool:
        yield pool


@asynccontextmanager
async def locked(database_url: str) -> AsyncGenerator[AsyncConnection]:
    """Nothing is stored within the block."""
    async with await async_connect(database_url) as other, other.transaction():
        await other.execute("LOCK TABLE graphwright.delivery_queue")
        yield other


async def test_a_statement_that_hangs_is_ended(
    pool: AsyncPool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where PostgreSQL takes longer to cancel it, the connection is cut, and it stays for a while.
    monkeypatch.setattr("sensors.cutting._CANCEL_SECONDS", 60)
    inbox = Inbox(pool)
    async with locked(database_url) as other:
        monkeypatch.setattr("sensors.inbox._STORE_SECONDS", 0.2)
        calls = [inbox.accept(arrival(f"id:{n}")) for n in range(3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 3
        # None is left in PostgreSQL, where they would become more and more.
        assert not await (await other.execute(_WAITERS)).fetchall()
    monkeypatch.setattr("sensors.inbox._STORE_SECONDS", 60)
    assert not await rows(pool)
    assert not (await inbox.accept(arrival("id:1"))).duplicate


async def test_a_connection_that_says_nothing_any_more_is_cut(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with through_a_relay(database_url) as (url, go_silent), async_pool(url, size=1) as pool:
        inbox = Inbox(pool)
        await inbox.accept(arrival("id:1"))
        monkeypatch.setattr("sensors.inbox._STORE_SECONDS", 0.2)
        monkeypatch.setattr("sensors.cutting._CANCEL_SECONDS", 0.2)
        go_silent()
        with pytest.raises(Unavailable):
            await inbox.accept(arrival("id:2"))


async def test_what_waits_is_bounded(
    pool: AsyncPool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sensors.inbox._MAX_WAITING_BYTES", 1_000)
    inbox = Inbox(pool)
    call = arrival(body=b"x" * 400)
    for _ in range(2):  # what was stored makes room
        async with locked(database_url), await async_connect(database_url) as watch:
            first = asyncio.create_task(inbox.accept(call))
            while not await (await watch.execute(_WAITERS)).fetchall():
                pass
            second = asyncio.create_task(inbox.accept(call))
            left = asyncio.create_task(inbox.accept(arrival(body=b"x" * 200)))
            await asyncio.sleep(0)
            assert not left.done()
            with pytest.raises(Unavailable):
                await inbox.accept(call)
            left.cancel()
        await asyncio.gather(first, second)
        await inbox.close()
    assert len(await rows(pool)) == 4


@asynccontextmanager
async def through_a_relay(
    database_url: str,
) -> AsyncGenerator[tuple[str, Callable[[], None]]]:
    """A URL of the database over TCP, and what lets nothing through any more on that way."""
    is_silent, tasks = False, set[asyncio.Task[None]]()
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    folder, number = query["host"][0], query.get("port", ["5432"])[0]

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                if not is_silent:
                    writer.write(data)
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_silent:
            writer.close()
            return
        inner, outer = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{number}")
        tasks.update(map(asyncio.create_task, (pump(reader, outer), pump(inner, writer))))

    def go_silent() -> None:
        nonlocal is_silent
        is_silent = True

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    query |= {"host": ["127.0.0.1"], "port": [str(port)]}
    try:
        yield parts._replace(query=urlencode(query, doseq=True)).geturl(), go_silent
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
