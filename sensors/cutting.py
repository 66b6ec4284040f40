"""A bound for statements on a connection that may hang."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import psycopg

from foundation.database import AsyncConnection

_CANCEL_SECONDS: Final = 1.0


@asynccontextmanager
async def cut_after(connection: AsyncConnection, seconds: float) -> AsyncGenerator[None]:
    """End what the block waits for on ``connection`` after so many seconds.

    PostgreSQL is asked to cancel the statement, so that none stays there to wait for a lock; then
    the block sees psycopg.errors.QueryCanceled. Where it does not do that within a second, the
    connection is cut: the block sees psycopg.OperationalError, and ``connection.closed``.

    ``asyncio.timeout`` would do so too, but psycopg then takes ten more seconds of its own.
    """
    cutting = asyncio.create_task(_cut(connection, seconds))
    try:
        yield
    finally:
        cutting.cancel()


async def _cut(connection: AsyncConnection, seconds: float) -> None:
    await asyncio.sleep(seconds)
    with suppress(psycopg.Error, TimeoutError):
        async with asyncio.timeout(_CANCEL_SECONDS):
            await connection.cancel_safe(timeout=_CANCEL_SECONDS)
            await asyncio.sleep(_CANCEL_SECONDS)  # for the answer, which ends this task
    # Not closed: whoever waits for it watches its number, which the next connection would get.
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as shared,
    ):
        shared.shutdown(socket.SHUT_RDWR)
