"""Stores of secrets on a real database."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import psycopg
import pytest

from foundation.database import async_connect
from foundation.secret_store import Rotation, SecretStore, master_keys, rotate
from foundation.settings import Settings
from foundation.tenant_pool import TenantPool, tenant_sessions

StoreFor = Callable[..., SecretStore]
RotateFor = Callable[..., Coroutine[Any, Any, Rotation]]


@pytest.fixture
async def tenants(database_url: str) -> AsyncGenerator[TenantPool]:
    async with tenant_sessions(database_url) as opened:
        yield TenantPool(opened)


@pytest.fixture
def store_for(tenants: TenantPool, settings: Settings) -> StoreFor:
    """``store_for()``: a store as another process has it, which has kept nothing yet."""

    def make(folder: Path | None = None) -> SecretStore:
        own = settings if folder is None else settings.model_copy(update={"state": folder})
        return SecretStore(tenants, master_keys(own))

    return make


@pytest.fixture
def rotate_for(settings: Settings) -> RotateFor:
    """``rotate_for()``: rotates the master key, as a process that has read nothing yet."""

    async def make(folder: Path | None = None) -> Rotation:
        own = settings if folder is None else settings.model_copy(update={"state": folder})
        async with await async_connect(settings.database_url) as connection:
            return await rotate(connection, master_keys(own))

    return make


@pytest.fixture
def store(store_for: StoreFor) -> SecretStore:
    return store_for()


@pytest.fixture
def key_file(settings: Settings) -> Path:
    """Where the master key is, or will be."""
    return settings.state / "master.key"


def read(path: Path) -> str:
    return path.read_text("ascii")


def mount(path: Path, text: str, mode: int) -> None:
    """Put another file in the place of this one."""
    path.unlink()
    path.write_text(text, "ascii")
    path.chmod(mode)


async def until_waiting(database_url: str, count: int, who: asyncio.Future[Any]) -> None:
    """Return once so many connections to this database wait for a lock; it is ``who`` that do."""
    waiting = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
    """
    while (await asyncio.to_thread(sql, database_url, waiting))[0][0] < count:
        assert not who.done()


def sql(database_url: str, statement: Any, *values: Any) -> list[tuple[Any, ...]]:
    """What the statement gives, over a connection of its own."""
    with psycopg.connect(database_url) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []
