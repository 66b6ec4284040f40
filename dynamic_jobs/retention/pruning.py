"""Who removes, and when: every worker looks once a minute whether it is time, and one at a time
goes on where the last has stopped; or the operator, at once and to the end.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import psycopg

from dynamic_jobs.retention import statements
from dynamic_jobs.retention.aged import remove_backfills, remove_deliveries
from dynamic_jobs.retention.batch import remove_runs
from dynamic_jobs.retention.objects import delete_left_objects
from dynamic_jobs.retention.others import remove_others
from dynamic_jobs.retention.removed import Removed, Rules
from dynamic_jobs.retention.walk import Batch, Position
from foundation.database import AsyncConnection, async_connect
from foundation.object_store import ObjectStoreAway, object_store
from foundation.settings import Settings

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 60.0
"""Between two walks over all tenants, and between a worker's looks whether one is due."""
_READING_SECONDS: Final = 60.0
"""How long after its row an object goes, for those who have read the row and not yet the object."""
_SHARE: Final = 0.05
"""Of its time on the database that a walk works; the rest it pauses."""

_Remove: TypeAlias = Callable[[AsyncConnection, Rules, Position], Awaitable[Batch]]
_WALKS: Final[Mapping[str, _Remove]] = {
    "runs": remove_runs,
    "deliveries": remove_deliveries,
    "backfills": remove_backfills,
}
"""Each with a row in the table ``retention``."""


class Pruner:
    """The removing of one worker. :meth:`run` ends when it is cancelled."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rules = Rules.of(settings)

    async def run(self) -> None:
        while True:
            try:
                async with await async_connect(self._settings.database_url) as connection:
                    removed = Removed()
                    for walk in _WALKS:
                        removed += await self._walk(connection, walk)
                    removed += await delete_objects(connection, self._settings, _READING_SECONDS)
                if removed:
                    _log.info("removed what is no longer kept: %s", removed)
            except (psycopg.Error, ObjectStoreAway) as error:
                _log.warning("what is no longer kept cannot be removed yet: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _walk(self, connection: AsyncConnection, walk: str) -> Removed:
        """Go on with the walk to its end, unless it is not time or another worker does so."""
        removed = Removed()
        while True:
            began = time.monotonic()
            batch = await self._batch(connection, walk)
            if batch is None:
                return removed
            removed += batch.removed
            if batch.last:
                return removed + await self._others(connection)
            await asyncio.sleep(_pause(began))

    async def _batch(self, connection: AsyncConnection, walk: str) -> Batch | None:
        """The next batch; None if it is not our turn, or not time."""
        async with connection.transaction():
            cursor = await connection.execute(statements.TURN, {"walk": walk})
            row = await cursor.fetchone()
            if row is None:
                return None
            began = time.monotonic()
            batch = await _WALKS[walk](connection, self._rules, Position.behind(row))
            told = {
                "walk": walk,
                "tenant": batch.position.tenant,
                "sort_id": batch.position.sort_id,
                "pause": _LOOK_SECONDS if batch.last else _pause(began),
            }
            await connection.execute(statements.ADVANCE, told)
        return batch

    async def _others(self, connection: AsyncConnection) -> Removed:
        removed, more = Removed(), True
        while more:
            began = time.monotonic()
            some, more = await remove_others(connection, self._rules)
            removed += some
            if more:
                await asyncio.sleep(_pause(began))
        return removed


def _pause(began: float) -> float:
    """How long to leave the database to others after work that began then, in seconds."""
    return (time.monotonic() - began) * (1 / _SHARE - 1)


async def prune(
    settings: Settings, *, dry_run: bool, progress: Callable[[Removed], None]
) -> Removed:
    """Remove all that is due, without pauses; ``progress`` is told what went so far.

    A dry run takes each batch back; it counts what the walks remove. Raises
    :class:`ObjectStoreAway`.
    """
    removed, more = Removed(), not dry_run
    rules = Rules.of(settings)
    async with await async_connect(settings.database_url) as connection:
        for walk, remove in _WALKS.items():
            position, last = Position(), False
            while not last:
                async with connection.transaction(force_rollback=dry_run):
                    await connection.execute(statements.LOCK, {"walk": walk})
                    batch = await remove(connection, rules, position)
                removed, position, last = removed + batch.removed, batch.position, batch.last
                progress(removed)
        while more:
            some, more = await remove_others(connection, rules)
            removed += some
        if not dry_run:
            removed += await delete_objects(connection, settings, 0.0)
    return removed


async def delete_objects(
    connection: AsyncConnection, settings: Settings, reading_seconds: float
) -> Removed:
    """:func:`delete_left_objects` of the installation's object store."""
    objects = object_store(settings.objects_url)
    try:
        return Removed(objects=await delete_left_objects(connection, objects, reading_seconds))
    finally:
        await asyncio.to_thread(objects.close)
