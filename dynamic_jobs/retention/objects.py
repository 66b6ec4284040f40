"""Large outputs of runs that are gone: deleted from the object store, after their rows.

The keys are noted in the transaction that removes the rows, and forgotten when the objects are
gone; whoever dies in between leaves them to the next. Nobody can come to name an object that no row
names, so it cannot be needed again while it is deleted.

Of a run that may have left objects without a row its folder is noted too, and what is in there.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from dynamic_jobs.retention.statements import (
    FORGET_OBJECTS,
    KEEP_OBJECTS,
    LEAVE_FOUND,
    LEFT_OBJECTS,
)
from foundation.database import AsyncConnection
from foundation.object_store import ObjectStore

_MOST_OBJECTS: Final = 1_000
"""Deleted at once."""

FOLDER_END: Final = "/"
"""At the end of a key that is a run's folder, and no object."""


async def delete_left_objects(
    connection: AsyncConnection, objects: ObjectStore, reading_seconds: float
) -> int:
    """Delete all objects whose outputs went more than ``reading_seconds`` ago, and count them.

    Until then somebody may be about to read one, who has read its row. Raises
    :class:`ObjectStoreAway`.
    """
    deleted = 0
    while True:
        found, unnamed = await _left(connection, reading_seconds)
        folders = [each for each in unnamed if each[1].endswith(FOLDER_END)]
        for tenant, folder in folders:
            keys = await asyncio.to_thread(_keys, objects, folder)
            values = {"tenant": tenant, "folder": folder, "keys": keys}
            await connection.execute(LEAVE_FOUND, values)
        gone = [each for each in unnamed if not each[1].endswith(FOLDER_END)]
        if gone:
            await asyncio.to_thread(objects.delete, [key for _, key in gone])
            await connection.execute(FORGET_OBJECTS, _columns(gone))
            deleted += len(gone)
        if found < _MOST_OBJECTS and not folders:
            return deleted


async def _left(
    connection: AsyncConnection, seconds: float
) -> tuple[int, Sequence[tuple[str, str]]]:
    """How many were noted, and those of them that no output is any more, with their tenants."""
    async with connection.transaction():
        # Held, for a batch that notes one of them again waits then until it is forgotten.
        cursor = await connection.execute(
            LEFT_OBJECTS, {"seconds": seconds, "limit": _MOST_OBJECTS}
        )
        left = [(row["tenant"], row["object_key"]) for row in await cursor.fetchall()]
        cursor = await connection.execute(KEEP_OBJECTS, _columns(left))
        named = {row["object_key"] for row in await cursor.fetchall()}
    return len(left), [each for each in left if each[1] not in named]


def _keys(objects: ObjectStore, folder: str) -> list[str]:
    return list(objects.keys(folder.removesuffix(FOLDER_END)))


def _columns(objects: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"tenants": [tenant for tenant, _ in objects], "keys": [key for _, key in objects]}
