"""Data keys and the master key that wraps them: made, and wrapped anew when it is rotated."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from psycopg.rows import DictRow

from foundation.database import AsyncConnection
from foundation.errors import Conflict
from foundation.ids import TenantId, new_id
from foundation.secret_store import statements
from foundation.secret_store.base import MasterKeyFault, MasterKeys, Wrapped
from foundation.secret_store.encryption import KEY_BYTES

_BATCH: Final = 100
_LEAST_ID: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation of the master key came to."""

    master_key: str
    """The id of the one that is current now."""
    rewrapped: int
    """Data keys that were wrapped anew."""
    retired: bool
    """Whether the former ones are gone; else they are the operator's to remove."""


async def new_data_key(
    connection: AsyncConnection, master_keys: MasterKeys, tenant: TenantId
) -> tuple[str, bytes]:
    """Make and store a data key of the tenant: its id, and itself.

    Raises MasterKeyFault and MasterKeyAway; also where there are data keys under a master key that
    this process does not have, for others would then not have its own.
    """
    data_key_id, key = new_id(), os.urandom(KEY_BYTES)
    async with connection.transaction():
        await connection.execute(statements.WRAPPING)
        await _check_known(connection, master_keys)
        wrapped = await asyncio.to_thread(master_keys.wrap, tenant, key)
        row = {
            "tenant": tenant,
            "data_key_id": data_key_id,
            "wrapped": wrapped.data,
            "master_key": wrapped.master_key,
        }
        await connection.execute(statements.ADD_DATA_KEY, row)
    return data_key_id, key


async def rotate(connection: AsyncConnection, master_keys: MasterKeys) -> Rotation:
    """Put a new master key in place of the current one, and wrap all data keys under it.

    Values are not touched, and can be read and written meanwhile. Where data keys are still under
    a former master key, because a rotation was cut off or the operator has put a new key in front,
    no further one is made.

    Raises Conflict while another rotation is under way, MasterKeyFault and MasterKeyAway.
    """
    async with _alone(connection):
        await _check_known(connection, master_keys)
        current = await asyncio.to_thread(master_keys.current)
        if await _all_under(connection, current):
            await asyncio.to_thread(master_keys.renew)
        # Whoever has wrapped under the former one has stored it; whoever wraps from now on asks
        # for the current one anew.
        async with connection.transaction():
            await connection.execute(statements.NO_WRAPPING)
        current = await asyncio.to_thread(master_keys.current)
        count = await _rewrap_all(connection, master_keys, current)
        if not await _all_under(connection, current):
            raise MasterKeyFault(
                "a data key was wrapped under another master key meanwhile",
                hint="Do all processes have the same master key? Then run this again.",
            )
        retired = await asyncio.to_thread(master_keys.retire)
    return Rotation(current, count, retired)


async def _rewrap_all(connection: AsyncConnection, master_keys: MasterKeys, current: str) -> int:
    count, after = 0, {"tenant": "", "data_key_id": _LEAST_ID}
    while True:
        given = {**after, "current": current, "limit": _BATCH}
        rows = await (await connection.execute(statements.TO_REWRAP, given)).fetchall()
        if not rows:
            return count
        fresh = await asyncio.gather(
            *(asyncio.to_thread(_rewrapped, master_keys, row) for row in rows)
        )
        columns = {
            "tenants": [row["tenant"] for row in rows],
            "ids": [row["data_key_id"] for row in rows],
            "wrapped": [each.data for each in fresh],
            "master_keys": [each.master_key for each in fresh],
        }
        await connection.execute(statements.REWRAP, columns)
        count += len(rows)
        after = {name: rows[-1][name] for name in after}


def _rewrapped(master_keys: MasterKeys, row: DictRow) -> Wrapped:
    key = master_keys.unwrap(row["tenant"], Wrapped(row["master_key"], row["wrapped"]))
    return master_keys.wrap(row["tenant"], key)


@asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncGenerator[None]:
    if not (await _one(connection, statements.BEGIN_ROTATION))["locked"]:
        raise Conflict(
            "the master key is being rotated already", hint="Wait for that to end, then look again."
        )
    try:
        yield
    finally:
        await connection.execute(statements.END_ROTATION)


async def _check_known(connection: AsyncConnection, master_keys: MasterKeys) -> None:
    row = await _one(connection, statements.MASTER_KEYS)
    for master_key in {row["first"], row["last"]} - {None}:
        if not await asyncio.to_thread(master_keys.holds, master_key):
            raise MasterKeyFault(
                f"secrets are encrypted under the master key {master_key}, which is missing here",
                hint="Give this process the master key that the others have: "
                "GRAPHWRIGHT_MASTER_KEY_FILE.",
            )


async def _all_under(connection: AsyncConnection, current: str) -> bool:
    row = await _one(connection, statements.MASTER_KEYS)
    return {row["first"], row["last"]} <= {current, None}


async def _one(connection: AsyncConnection, statement: Any) -> DictRow:
    row = await (await connection.execute(statement)).fetchone()
    assert row is not None
    return row
