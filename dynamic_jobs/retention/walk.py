"""A walk of retention: from tenant to tenant, and within one from its oldest row on.

A batch costs what it visits and removes, however many rows and tenants there are beside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg.rows import DictRow

from dynamic_jobs.retention.removed import Removed, Rules
from foundation.database import AsyncConnection

MOST_TENANTS: Final = 1_000
"""Visited in one transaction."""
_MOST_DAYS: Final = 20_000
"""Longer is as good as for ever, and the time before that has no UUIDv7."""

_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
_LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a walk has come: behind this row."""

    tenant: str = ""
    sort_id: str = _FIRST_ID

    @classmethod
    def behind(cls, row: Mapping[str, Any]) -> "Position":
        return cls(row["tenant"], row["sort_id"])


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch has removed, and where the next one begins."""

    removed: Removed
    position: Position
    last: bool
    """The walk has come round."""


async def visit(
    connection: AsyncConnection,
    statement: LiteralString,
    rules: Rules,
    after: Position,
    *,
    least_hours: float = 0,
) -> list[DictRow]:
    """The next tenants, each with its oldest row and up to where its rows are old enough.

    Args:
        least_hours: rows are kept so long in any case.
    """
    return await rows_of(
        connection,
        statement,
        tenant=after.tenant,
        sort_id=after.sort_id,
        tenants=MOST_TENANTS,
        days=rules.days,
        least_hours=least_hours,
        most_days=_MOST_DAYS,
    )


async def find_old(
    connection: AsyncConnection,
    statement: LiteralString,
    visited: Sequence[Mapping[str, Any]],
    limit: int,
) -> list[DictRow]:
    """The first rows that are old enough to be due; ``due`` says whether they are."""
    # Each tenant has one such row at least, so that more of them than rows are not looked at.
    tenants = [row for row in visited if row["bound"] and row["oldest"] < row["bound"]][:limit]
    if not tenants:
        return []
    return await rows_of(
        connection,
        statement,
        tenants=[row["tenant"] for row in tenants],
        oldest=[row["oldest"] for row in tenants],
        bounds=[row["bound"] for row in tenants],
        cutoffs=[row["cutoff"] for row in tenants],
        limit=limit,
    )


def ended(
    removed: Removed, visited: Sequence[Mapping[str, Any]], stopped_at: Mapping[str, Any] | None
) -> Batch:
    """The batch that went up to this row, or through all tenants that it visited."""
    if stopped_at is not None:
        return Batch(removed, Position.behind(stopped_at), last=False)
    if len(visited) == MOST_TENANTS:
        return Batch(removed, Position(visited[-1]["tenant"], _LAST_ID), last=False)
    return Batch(removed, Position(), last=True)


async def rows_of(
    connection: AsyncConnection, statement: LiteralString, **values: Any
) -> list[DictRow]:
    return await (await connection.execute(statement, values)).fetchall()
