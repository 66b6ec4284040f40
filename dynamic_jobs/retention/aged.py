"""Deliveries and backfills: rows with nothing beside them, which go by their age alone.

A delivery goes so long after its verdict, a backfill so long after its end; while either is still
to come, it stays.
"""

import itertools
from collections.abc import Sequence
from typing import Final, LiteralString

from psycopg.rows import DictRow

from dynamic_jobs.retention import aged_statements as statements
from dynamic_jobs.retention.removed import Removed, Rules
from dynamic_jobs.retention.statements import BY_INDEX
from dynamic_jobs.retention.walk import Batch, Position, ended, find_old, visit
from foundation.database import AsyncConnection

MOST_ROWS: Final = 1_000
MOST_BYTES: Final = 32 * 2**20
"""Of bodies, in one transaction; a delivery that has more is removed in one of its own."""


async def remove_deliveries(connection: AsyncConnection, rules: Rules, after: Position) -> Batch:
    """As :func:`batch.remove_runs`, of the inbox.

    What a repeated call is known by has an end of its own, and may outlive the delivery.
    """
    await connection.execute(BY_INDEX)
    visited = await visit(connection, statements.VISIT_DELIVERIES, rules, after)
    old = await find_old(connection, statements.OLD_DELIVERIES, visited, MOST_ROWS)
    taken = _first(old)
    deleted = await _delete(connection, statements.DELETE_DELIVERIES, taken)
    more = len(taken) < len(old) or len(old) == MOST_ROWS
    return ended(Removed(deliveries=deleted), visited, taken[-1] if more else None)


async def remove_backfills(connection: AsyncConnection, rules: Rules, after: Position) -> Batch:
    """As :func:`batch.remove_runs`, of backfills that have ended."""
    await connection.execute(BY_INDEX)
    visited = await visit(connection, statements.VISIT_BACKFILLS, rules, after)
    old = await find_old(connection, statements.OLD_BACKFILLS, visited, MOST_ROWS)
    deleted = await _delete(connection, statements.DELETE_BACKFILLS, old)
    more = len(old) == MOST_ROWS
    return ended(Removed(backfills=deleted), visited, old[-1] if more else None)


def _first(deliveries: Sequence[DictRow]) -> Sequence[DictRow]:
    """As many of these as have bytes for one transaction; one at least."""
    sums = itertools.accumulate(row["bytes"] if row["due"] else 0 for row in deliveries)
    fitting = sum(1 for each in sums if each <= MOST_BYTES)
    return deliveries[: max(1, fitting)]


async def _delete(
    connection: AsyncConnection, statement: LiteralString, rows: Sequence[DictRow]
) -> int:
    due = [row for row in rows if row["due"]]
    if not due:
        return 0
    tenants, ids = [row["tenant"] for row in due], [row["sort_id"] for row in due]
    return (await connection.execute(statement, {"tenants": tenants, "ids": ids})).rowcount
