"""Backfills as their owner sees them: a run for each due time that a timer had in a past range."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Literal, LiteralString

from psycopg.rows import DictRow

from dynamic_jobs.creating.idempotency import KeyReused
from foundation.errors import Conflict, Fault, Invalid, NotFound
from foundation.ids import GraphId, TenantId, TriggerId, new_id
from foundation.paging import Page, decode_cursor, encode_cursor
from foundation.tenant_pool import TenantPool
from graph_defs.finding import UUID
from graph_defs.recurrence import Recurrence, recurrence_of
from graph_defs.trigger_store import StoredTrigger
from graph_defs.triggers import TimerTrigger
from schedules.timers import timer_of

MOST_DUE_TIMES: Final = 100_000
MOST_RUNNING: Final = 1_000

ADD: Final[LiteralString] = """
INSERT INTO graphwright.backfills (
    tenant, backfill_id, trigger_id, graph_id, name, config, from_at, to_at, next_at, max_running,
    total, author, idempotency_key
) VALUES (
    %(tenant)s, %(backfill_id)s, %(trigger_id)s, %(graph_id)s, %(name)s, %(config)s, %(from_at)s,
    %(to_at)s, %(from_at)s, %(max_running)s, %(total)s, %(author)s, %(idempotency_key)s
)
ON CONFLICT (tenant, idempotency_key) DO NOTHING
"""

_BACKFILL: Final[LiteralString] = """
SELECT b.backfill_id::text, b.trigger_id::text, b.graph_id::text, g.name AS graph, b.name,
    b.from_at, b.to_at, b.max_running, b.total, b.made, b.refused, b.status, b.reason, b.author,
    b.created_at, b.ended_at
FROM graphwright.backfills b
JOIN graphwright.graphs g ON g.tenant = b.tenant AND g.graph_id = b.graph_id
WHERE b.tenant = %(tenant)s
"""

GET: Final[LiteralString] = _BACKFILL + "AND b.backfill_id = %(backfill_id)s"
FIRST: Final[LiteralString] = _BACKFILL + "ORDER BY b.backfill_id DESC LIMIT %(limit)s"
BEFORE: Final[LiteralString] = (
    _BACKFILL + "AND b.backfill_id < %(before)s ORDER BY b.backfill_id DESC LIMIT %(limit)s"
)

RUNS: Final[LiteralString] = """
SELECT r.status, count(*) AS runs FROM graphwright.runs r
WHERE r.tenant = %(tenant)s AND r.backfill_id = %(backfill_id)s
    AND r.parent_run_id IS NULL
GROUP BY r.status
"""

USED: Final[LiteralString] = """
SELECT backfill_id::text, trigger_id::text, from_at, to_at, max_running
FROM graphwright.backfills WHERE tenant = %(tenant)s AND idempotency_key = %(idempotency_key)s
"""

CANCEL: Final[LiteralString] = """
UPDATE graphwright.backfills SET status = 'cancelling', not_before = NULL
WHERE tenant = %(tenant)s AND backfill_id = %(backfill_id)s AND status = 'running'
"""


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill, as far as it has come."""

    backfill_id: str
    trigger_id: TriggerId
    graph_id: GraphId
    graph: str
    """Its name."""
    name: str
    """Of the timer."""
    from_at: datetime
    to_at: datetime
    """Not included."""
    max_running: int
    total: int
    """Due times."""
    made: int
    """Of them have got a run."""
    refused: int
    """Of them can have none; the last for the ``reason``."""
    status: Literal["running", "cancelling", "cancelled", "failed", "succeeded"]
    reason: str | None
    author: str
    created_at: datetime
    ended_at: datetime | None
    runs: Mapping[str, int]
    """How many runs have which status; without those that retention has removed, and runs that
    repeat one of them. Empty in lists."""


class BackfillStore:
    """Backfills of all tenants; every method asks for one tenant's and sees no other's.

    A backfill is carried out by :class:`backfilling.Backfilling`.
    """

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def create(
        self,
        stored: StoredTrigger,
        start: datetime,
        end: datetime,
        max_running: int,
        author: str,
        now: datetime,
        *,
        idempotency_key: str | None = None,
    ) -> tuple[Backfill, bool]:
        """Ask for a run for each due time of the timer in ``[start, end)``.

        At most ``max_running`` of them are unfinished at a time. Returns the backfill, and whether
        the same request with the same key had asked for it before.

        Raises:
            Conflict: the trigger is no timer.
            Invalid: the range is empty, not past, or has more than 100,000 due times.
            KeyReused: the key came with another request before.
        """
        timer = timer_of(stored)
        values: dict[str, Any] = {
            "tenant": stored.tenant,
            "backfill_id": new_id(),
            "trigger_id": stored.trigger_id,
            "graph_id": stored.graph_id,
            "name": stored.name,
            "config": timer.config,
            "from_at": start,
            "to_at": end,
            "max_running": max_running,
            "author": author,
            "idempotency_key": idempotency_key,
        }
        if used := await self._used(values):
            return await self.get(stored.tenant, used), True
        recurrence = recurrence_of(TimerTrigger.model_validate_json(timer.config))
        total = await asyncio.to_thread(_count, recurrence, start, end)
        if faults := list(_faults(start, end, max_running, total, now)):
            raise Invalid("The backfill has faults.", faults)
        async with self._pool.connection(stored.tenant) as connection:
            added = (await connection.execute(ADD, {**values, "total": total})).rowcount == 1
        used = None if added else await self._used(values)
        return await self.get(stored.tenant, used or values["backfill_id"]), not added

    async def get(self, tenant: TenantId, backfill_id: str) -> Backfill:
        """One backfill, with how its runs stand. Raises NotFound."""
        if not UUID.fullmatch(backfill_id):
            raise _no_backfill(backfill_id)
        given = {"tenant": tenant, "backfill_id": backfill_id}
        async with self._pool.connection(tenant) as connection:
            row = await (await connection.execute(GET, given)).fetchone()
            if row is None:
                raise _no_backfill(backfill_id)
            runs = await (await connection.execute(RUNS, given)).fetchall()
        return _backfill(row, {each["status"]: each["runs"] for each in runs})

    async def _used(self, asked: Mapping[str, Any]) -> str | None:
        """The backfill that was asked for with this key, if there is one. Raises KeyReused."""
        if asked["idempotency_key"] is None:
            return None
        async with self._pool.connection(asked["tenant"]) as connection:
            row = await (await connection.execute(USED, asked)).fetchone()
        if row is None:
            return None
        backfill_id = row.pop("backfill_id")
        if any(row[name] != asked[name] for name in row):
            raise KeyReused(
                "this Idempotency-Key was used for another request",
                hint="Make a new key for each backfill; send it again unchanged only to repeat "
                "that.",
                backfill_id=backfill_id,
            )
        return backfill_id

    async def list(self, tenant: TenantId, limit: int, cursor: str | None = None) -> Page[Backfill]:
        """At most ``limit`` backfills, newest first. Raises Invalid for a bad cursor."""
        given: dict[str, Any] = {"tenant": tenant, "limit": limit + 1}
        statement = FIRST
        if cursor is not None:
            given["before"] = decode_cursor(cursor)
            statement = BEFORE
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(statement, given)).fetchall()
        more = len(rows) > limit
        items = [_backfill(row, {}) for row in rows[:limit]]
        return Page(items, encode_cursor(items[-1].backfill_id) if more else None)

    async def cancel(self, tenant: TenantId, backfill_id: str) -> Backfill:
        """Let it start no further run, and have those cancelled that have not ended.

        Raises NotFound, and Conflict where it has ended.
        """
        await self.get(tenant, backfill_id)
        given = {"tenant": tenant, "backfill_id": backfill_id}
        async with self._pool.connection(tenant) as connection:
            await connection.execute(CANCEL, given)
        asked = await self.get(tenant, backfill_id)
        if asked.ended_at is not None:
            raise Conflict(f"the backfill has ended: {asked.status}", backfill_id=backfill_id)
        return asked


def _count(recurrence: Recurrence, start: datetime, end: datetime) -> int:
    """The due times in the range, or one more than may be."""
    return sum(1 for _ in islice(recurrence.between(start, end), MOST_DUE_TIMES + 1))


def _faults(
    start: datetime, end: datetime, max_running: int, total: int, now: datetime
) -> list[Fault]:
    faults: list[Fault] = []
    if end > now.astimezone(UTC):
        faults.append(Fault("/to", "bad_value", "The range must be past."))
    if end <= start:
        faults.append(Fault("/to", "bad_value", "The range ends before it begins."))
    elif total == 0:
        faults.append(Fault("/from", "bad_value", "The timer has no due time in this range."))
    elif total > MOST_DUE_TIMES:
        faults.append(
            Fault(
                "/from",
                "too_many",
                f"The timer has more than {MOST_DUE_TIMES:,} due times in this range.",
                "Ask for several shorter ranges.",
            )
        )
    if not 1 <= max_running <= MOST_RUNNING:
        faults.append(Fault("/max_running", "bad_value", f"It must be from 1 to {MOST_RUNNING:,}."))
    return faults


def _backfill(row: DictRow, runs: Mapping[str, int]) -> Backfill:
    given: dict[str, Any] = {**row, "runs": runs}
    return Backfill(**given)


def _no_backfill(backfill_id: str) -> NotFound:
    return NotFound(
        f"there is no backfill {backfill_id}",
        hint="`GET /api/v1/backfills` lists them.",
        backfill_id=backfill_id,
    )
