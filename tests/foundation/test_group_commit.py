"""Group commit, over a table of its own."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import psycopg
import pytest

from foundation.database import AsyncConnection, AsyncPool, async_pool
from foundation.group_commit import GroupCommit

pytestmark = pytest.mark.anyio

_MEGABYTE = 2**20


class Store:
    """Stores numbers, and keeps the batches that were asked for; there is no -1 in the table."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def __call__(
        self, connection: AsyncConnection, numbers: Sequence[int]
    ) -> Sequence[str | Exception]:
        self.batches.append(list(numbers))
        self.began.set()
        await self.may_go_on.wait()
        await connection.execute("INSERT INTO numbers SELECT unnest(%s::int[])", [list(numbers)])
        return [KeyError(number) if number == 0 else str(number) for number in numbers]


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[AsyncPool]:
    async with async_pool(database_url) as pool, pool.connection() as connection:
        await connection.execute("CREATE TABLE numbers (number int CHECK (number > -1))")
        yield pool


async def numbers(pool: AsyncPool) -> list[int]:
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT number FROM numbers ORDER BY number")
        return [row["number"] for row in await cursor.fetchall()]


async def test_what_comes_while_a_batch_is_written_makes_up_the_next(pool: AsyncPool) -> None:
    store = Store()
    store.may_go_on.clear()
    commits = GroupCommit(pool, store)
    first = asyncio.create_task(commits.add(1, 1))
    await store.began.wait()
    others = asyncio.gather(*(commits.add(number, 1) for number in (2, 3, 4)))
    await asyncio.sleep(0)  # they ask
    store.may_go_on.set()
    assert [await first, *await others] == ["1", "2", "3", "4"]
    assert store.batches == [[1], [2, 3, 4]]
    assert await numbers(pool) == [1, 2, 3, 4]
    assert commits.bytes == 0


async def test_batches_are_bounded_in_items_and_bytes(pool: AsyncPool) -> None:
    store = Store()
    commits = GroupCommit(pool, store)
    small = [commits.add(number, 1) for number in range(1, 301)]
    large = [commits.add(number, 3 * _MEGABYTE) for number in range(301, 304)]
    await asyncio.gather(*small, *large, commits.add(304, 5 * _MEGABYTE))
    assert [len(batch) for batch in store.batches] == [256, 45, 1, 1, 1]
    await commits.close()
    assert commits.bytes == 0


async def test_one_that_is_refused_costs_only_itself(pool: AsyncPool) -> None:
    commits = GroupCommit(pool, Store())
    results = await asyncio.gather(
        *(commits.add(number, 1) for number in (1, -1, 0, 2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [
        str,
        psycopg.errors.CheckViolation,
        KeyError,  # stored, and yet its caller is to be told of it
        str,
    ]
    assert await numbers(pool) == [0, 1, 2]


async def test_whoever_leaves_takes_only_its_own_item_along(pool: AsyncPool) -> None:
    store = Store()
    store.may_go_on.clear()
    commits = GroupCommit(pool, store)
    first, leaves, stays = (asyncio.create_task(commits.add(number, 1)) for number in (1, 2, 3))
    await store.began.wait()
    late_leaver = asyncio.create_task(commits.add(4, 1))
    await asyncio.sleep(0)
    for task in (leaves, late_leaver):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    store.may_go_on.set()
    assert [await first, await stays] == ["1", "3"]
    await commits.close()
    assert await numbers(pool) == [1, 2, 3]  # the batch with 2 was being written
    assert commits.bytes == 0


async def test_a_connection_that_is_lost_fails_all_that_wait(pool: AsyncPool) -> None:
    async def cut(connection: AsyncConnection, items: Sequence[int]) -> Sequence[str]:
        batches.append(list(items))
        await connection.close()
        await connection.execute("SELECT 1")
        return []

    batches: list[list[int]] = []
    commits = GroupCommit(pool, cut)
    results = await asyncio.gather(
        *(commits.add(number, 3 * _MEGABYTE) for number in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [psycopg.OperationalError] * 3
    assert batches == [[0]]  # and nothing is tried again
    assert commits.bytes == 0


async def test_no_connection_in_time_fails_all_that_wait(database_url: str) -> None:
    commits = GroupCommit(async_pool(database_url), Store(), wait_seconds=0.1)  # never opened
    results = await asyncio.gather(
        *(commits.add(number, 3 * _MEGABYTE) for number in range(2)), return_exceptions=True
    )
    assert all(isinstance(result, psycopg.OperationalError) for result in results)
    assert commits.bytes == 0
