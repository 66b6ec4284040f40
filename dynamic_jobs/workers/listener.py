"""Listens for PostgreSQL's notifications: there is work, or a run is to be cancelled."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import psycopg
from psycopg.sql import SQL, Identifier

from dynamic_jobs.control import CANCEL_CHANNEL, cancelled
from dynamic_jobs.creating.new_run import WAKE_CHANNEL
from dynamic_jobs.executing.active import Interrupt
from foundation.database import async_connect
from foundation.ids import RunId, TenantId

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


async def listen(
    database_url: str,
    wake: Callable[[], None],
    interrupt: Callable[[RunId, Interrupt], None],
    held: Callable[[], Mapping[RunId, TenantId]],
) -> None:
    """Listen until cancelled, on a connection of its own.

    What was notified while nobody listened is looked up: whether there is work, and whether one of
    the runs that are ``held`` is to be cancelled.
    """
    while True:
        try:
            async with await async_connect(database_url) as connection:
                for channel in (WAKE_CHANNEL, CANCEL_CHANNEL):
                    await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
                wake()
                for run_id in await cancelled(connection, held()):
                    interrupt(run_id, "cancel")
                async for notification in connection.notifies():
                    if notification.channel == CANCEL_CHANNEL:
                        interrupt(RunId(notification.payload), "cancel")
                    else:
                        wake()
        except psycopg.Error as error:
            _log.warning("not listening, polling instead: %s", error)
        await asyncio.sleep(_AGAIN_SECONDS)
