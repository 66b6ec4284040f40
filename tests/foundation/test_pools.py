"""Connections of pools are given back, however those who use them are cut off."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random

import pytest

from foundation.database import AsyncPool, async_pool
from foundation.ids import TenantId
from foundation.telemetry.health import report, sessions
from foundation.tenant_pool import TenantPool, tenant_sessions

pytestmark = pytest.mark.anyio

SIZE = 4
USERS, ROUNDS = 30, 40


@pytest.mark.parametrize("cuts", [1, 2])
async def test_sessions_of_tenants_whose_users_are_cancelled(database_url: str, cuts: int) -> None:
    """Once, or again while that is under way; most of them while they wait, or give it back."""
    async with tenant_sessions(database_url, size=SIZE) as pool:
        tenants, random = TenantPool(pool), Random(7)

        async def use() -> None:
            async with tenants.connection(TenantId(random.choice("abc"))) as connection:
                await connection.execute("SELECT 1")

        await _cut_off(use, cuts, random)
        await _all_are_there(pool)


@pytest.mark.parametrize("cuts", [1, 2])
async def test_sessions_of_the_system_whose_users_are_cancelled(
    database_url: str, cuts: int
) -> None:
    async with async_pool(database_url, size=SIZE) as pool:

        async def use() -> None:
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")

        await _cut_off(use, cuts, Random(7))
        await _all_are_there(pool)


async def test_a_pool_that_is_used_up_is_told(database_url: str) -> None:
    async with async_pool(database_url, size=1) as pool:
        await pool.wait(60)  # for its connection: the check has less patience
        check = sessions("sessions", pool, asyncio.get_running_loop())
        assert await asyncio.to_thread(report, [check]) == (
            True,
            {"status": "ready", "checks": {"sessions": "ok"}},
        )
        async with pool.connection():
            well, said = await asyncio.to_thread(report, [check])
        assert not well
        assert "couldn't get a connection" in said["checks"]["sessions"]


async def _cut_off(use: Callable[[], Awaitable[None]], cuts: int, random: Random) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(ROUNDS):
        users = [asyncio.ensure_future(use()) for _ in range(USERS)]
        for user in users:
            at = random.uniform(0, 0.003)
            for _ in range(cuts):
                loop.call_later(at, user.cancel)
                at += random.uniform(0, 0.001)
        await asyncio.wait(users)


async def _all_are_there(pool: AsyncPool) -> None:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        for _ in range(SIZE):
            connection = await stack.enter_async_context(pool.connection())
            await connection.execute("SELECT 1")
