"""Turns that processes take."""

import asyncio

import psycopg
import pytest

from foundation.database import async_connect, connect
from foundation.turns import give_up_after, has_turn, is_taken

pytestmark = pytest.mark.anyio


async def test_one_connection_at_a_time_has_the_turn(database_url: str) -> None:
    async with await async_connect(database_url) as one, await async_connect(database_url) as other:
        turns = [await has_turn(each, "work") for each in (one, one, other)]
        assert turns == [True, True, False]
        assert await has_turn(other, "other work")
        await one.close()
        async with asyncio.timeout(60):
            while not await has_turn(other, "work"):  # the server needs a moment to notice
                pass


async def test_whether_a_turn_is_taken_is_seen_without_taking_it(database_url: str) -> None:
    with connect(database_url) as looking, connect(database_url) as beside:
        async with await async_connect(database_url) as one:
            assert not is_taken(looking, "work")
            assert await has_turn(one, "work")
            assert is_taken(looking, "work")
            assert is_taken(beside, "work")
            assert not is_taken(looking, "other work")


async def test_who_asks_nothing_for_long_loses_the_turn(database_url: str) -> None:
    async with await async_connect(database_url) as one, await async_connect(database_url) as other:
        assert await has_turn(one, "work")
        await give_up_after(one, 0.2)  # the last that it asks: it may stand still at any time
        async with asyncio.timeout(60):
            while not await has_turn(other, "work"):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        with pytest.raises(psycopg.OperationalError):
            await has_turn(one, "work")
