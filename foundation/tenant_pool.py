"""Sessions of PostgreSQL that serve one tenant: the second wall between tenants.

    async with tenants.connection(tenant) as connection:
        rows = await (await connection.execute("SELECT … WHERE tenant = %s", (tenant,))).fetchall()

A session has the role ``graphwright_tenant`` from its start, and by the policies of the database
(migrations/0005_wall.sql) sees and changes only rows of the tenant that it has set. It keeps that
when it goes back to the pool, and sets it again only where it is to serve another: a round trip.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, LiteralString

from foundation.database import (
    AsyncConnection,
    AsyncPool,
    Connection,
    Pool,
    async_pool,
    pool,
)
from foundation.ids import TenantId

TENANT_ROLE: Final = "graphwright_tenant"
SET_TENANT: Final[LiteralString] = "SELECT set_config('graphwright.tenant', %s, false)"

_ROLE: Final = f"-crole={TENANT_ROLE}"
_LOCK_TIMEOUT: Final = "-clock_timeout=5s"
"""Sessions are few: whoever waits for another's lock is not to keep one for long."""


class TenantPool:
    """Sessions for the event loop, each for one tenant at a time."""

    def __init__(self, pool: AsyncPool) -> None:
        """``pool`` is one of :func:`tenant_sessions`, which its owner opens and closes."""
        self._pool = pool

    async def check(self) -> None:
        """Raises as :meth:`connection` where no session can be had, or it does not answer."""
        async with self._pool.connection() as session:
            await session.execute("SELECT 1")

    @asynccontextmanager
    async def connection(self, tenant: TenantId) -> AsyncGenerator[AsyncConnection]:
        """A session that serves this tenant, in autocommit mode.

        Raises PoolTimeout where there is none in time.
        """
        session = await self._pool.getconn()
        try:
            if session.tenant != tenant:
                session.tenant = None  # should this be cut off, nobody knows which it is
                await session.execute(SET_TENANT, (tenant,))
                session.tenant = tenant
            yield session
        finally:
            await self._pool.putconn(session)


class BlockingTenantPool:
    """:class:`TenantPool` for threads."""

    def __init__(self, pool: Pool) -> None:
        """``pool`` is one of :func:`blocking_tenant_sessions`."""
        self._pool = pool

    @contextmanager
    def connection(self, tenant: TenantId) -> Generator[Connection]:
        """A session that serves this tenant, in autocommit mode.

        Raises PoolTimeout where there is none in time.
        """
        session = self._pool.getconn()
        try:
            if session.tenant != tenant:
                session.tenant = None
                session.execute(SET_TENANT, (tenant,))
                session.tenant = tenant
            yield session
        finally:
            self._pool.putconn(session)


def tenant_sessions(url: str, *, size: int = 8) -> AsyncPool:
    """:func:`async_pool` of the tenants' role."""
    return async_pool(url, _ROLE, _LOCK_TIMEOUT, size=size)


def tenant_sessions_by_key(url: str, *, size: int = 8) -> AsyncPool:
    """:func:`tenant_sessions` for statements that find each row by its whole key.

    Such a statement has one plan, and it is kept. By default PostgreSQL makes it anew each time,
    for several times as long as it then takes: it takes a plan for any tenant for one that reads
    the partitions of all. Figures are in docs/adr/0016-reads.md.
    """
    return async_pool(url, _ROLE, _LOCK_TIMEOUT, "-cplan_cache_mode=force_generic_plan", size=size)


def blocking_tenant_sessions(url: str, *, size: int = 4) -> Pool:
    """:func:`pool` of the tenants' role."""
    return pool(url, _ROLE, size=size)
