"""Listens for PostgreSQL's notifications: there is work, or a run is to be cancelled or paused."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import psycopg
from psycopg.sql import SQL, Identifier

from dynamic_jobs.controlling.telling import CHANNEL, Request, wishes
from dynamic_jobs.queueing.waking import DELAYED, WAKE_CHANNEL
from foundation.database import async_connect
from foundation.ids import RunId, TenantId

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


async def listen(
    database_url: str,
    *,
    wake: Callable[[], None],
    poke: Callable[[], None],
    heed: Callable[[Request], None],
    held: Callable[[], Mapping[RunId, TenantId]],
) -> None:
    """Listen until cancelled, on a connection of its own. ``poke`` is called when some of the work
    is for later.

    What was notified while nobody listened is looked up: whether there is work, and whether one of
    the runs that are ``held`` is to be cancelled or paused.
    """
    while True:
        try:
            async with await async_connect(database_url) as connection:
                for channel in (WAKE_CHANNEL, CHANNEL):
                    await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
                wake()
                for request in await wishes(connection, held()):
                    heed(request)
                async for notification in connection.notifies():
                    if notification.channel == CHANNEL:
                        heed(Request.parse(notification.payload))
                    else:
                        if notification.payload == DELAYED:
                            poke()
                        wake()
        except psycopg.Error as error:
            _log.warning("not listening, polling instead: %s", error)
        await asyncio.sleep(_AGAIN_SECONDS)
