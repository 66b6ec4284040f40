"""What goes by a time of its own: keys past their end, refused calls, graphs out of the window."""

from collections.abc import Mapping
from typing import Final, LiteralString

from dynamic_jobs.retention.aged_statements import DELETE_DELIVERY_KEYS, DELETE_REFUSED
from dynamic_jobs.retention.removed import Removed, Rules
from dynamic_jobs.retention.statements import BY_INDEX, DELETE_KEYS, DELETE_RECENT
from foundation.database import AsyncConnection

MOST_OTHERS: Final = 1_000
"""Rows of each in one transaction."""
_REFUSED_DAYS: Final = 7
"""How long a refused call of a webhook is kept, where its tenant does not keep things shorter."""


async def remove_others(connection: AsyncConnection, rules: Rules) -> tuple[Removed, bool]:
    """Remove some; whether more are left. Any number of processes may do so at once."""
    keys = await _remove(connection, DELETE_KEYS)
    delivery_keys = await _remove(connection, DELETE_DELIVERY_KEYS)
    refused = await _remove(connection, DELETE_REFUSED, {"days": _REFUSED_DAYS})
    graphs = await _remove(connection, DELETE_RECENT, {"kept": rules.recent_graphs})
    removed = Removed(
        deliveries=refused,
        delivery_keys=delivery_keys,
        idempotency_keys=keys,
        recent_graphs=graphs,
    )
    return removed, MOST_OTHERS in {keys, delivery_keys, refused, graphs}


async def _remove(
    connection: AsyncConnection, statement: LiteralString, given: Mapping[str, int] | None = None
) -> int:
    async with connection.transaction():
        await connection.execute(BY_INDEX)
        cursor = await connection.execute(statement, {"limit": MOST_OTHERS, **(given or {})})
    return cursor.rowcount
