"""Can a process serve? Not without PostgreSQL, at its schema, nor without sessions to use."""

import asyncio

import psycopg
from psycopg_pool import PoolTimeout

from foundation.database import AsyncPool
from foundation.errors import Unavailable
from foundation.schema import Applied
from foundation.tenant_pool import TenantPool

TIMEOUT_SECONDS = 2.0


async def check_sessions(tenants: TenantPool) -> None:
    """Raise Unavailable where there is no session for a tenant to be had."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await tenants.check()
    except (TimeoutError, PoolTimeout, psycopg.OperationalError) as error:
        raise Unavailable("no session of PostgreSQL is free") from error


async def check_database(pool: AsyncPool) -> None:
    """Raise Unavailable where PostgreSQL does not answer, or lacks a migration."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), pool.connection() as connection:
            lacks = (await Applied.read(connection)).lacks
    except (TimeoutError, PoolTimeout, psycopg.OperationalError) as error:
        raise Unavailable("PostgreSQL does not answer") from error
    if lacks:
        raise Unavailable(f"the database lacks {lacks}", hint="Run `graphwright migrate`.")
