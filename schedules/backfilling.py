"""Carrying backfills out: runs for their due times, a few at a time, and cancelling them.

A step of a backfill is one transaction: it makes the next runs and notes how far it has come. So
any number of processes may do it at once, and be killed at any moment.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, LiteralString

from psycopg.rows import DictRow

from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.creating.making import is_passing, make_runs
from dynamic_jobs.creating.many import Made, ManyRuns, Wanted
from dynamic_jobs.creating.refusals import ConcurrencyConflict, NotYet
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import AsyncConnection, AsyncPool, connect
from foundation.errors import Conflict, NotFound
from foundation.ids import GraphId, RunId, TenantId, TriggerId
from foundation.text import storable
from graph_defs.expressions import Evaluator
from graph_defs.recurrence import due_text
from schedules.firing import Firing, NoParams, Timer

_log = logging.getLogger(__name__)

BACKFILL_TAG: Final = "graphwright/backfill"
"""Not Dagster's own tag: its UI would file the runs under a backfill that it does not know."""

_MAX_REASON: Final = 2_000
_SECOND: Final = timedelta(seconds=1)
_SECONDS: Final = 5.0
"""A step whose params take long ends after so long, for it keeps a transaction open."""
_LOOK: Final = timedelta(seconds=0.25)
"""After so long it is seen that runs have ended, and others can have their place."""

UNDER_WAY: Final[LiteralString] = """
SELECT tenant, backfill_id::text FROM graphwright.backfills
WHERE ended_at IS NULL AND (not_before IS NULL OR not_before <= now())
ORDER BY created_at
"""

LOCK: Final[LiteralString] = """
SELECT tenant, backfill_id::text, trigger_id::text, graph_id::text, name, config::text, to_at,
    next_at, not_before, max_running, refused, status
FROM graphwright.backfills
WHERE tenant = %(tenant)s AND backfill_id = %(backfill_id)s AND ended_at IS NULL
    AND (not_before IS NULL OR not_before <= now())
FOR NO KEY UPDATE SKIP LOCKED
"""

UNFINISHED: Final[LiteralString] = """
SELECT r.run_id::text, r.status FROM graphwright.runs r
WHERE r.tenant = %(tenant)s AND r.backfill_id = %(backfill_id)s
    AND r.parent_run_id IS NULL
    AND r.status = ANY('{queued,running,waiting,paused,cancelling}')
"""

BADLY_ENDED: Final[LiteralString] = """
SELECT FROM graphwright.runs r
WHERE r.tenant = %(tenant)s AND r.backfill_id = %(backfill_id)s
    AND r.parent_run_id IS NULL AND r.status = ANY('{failed,cancelled}')
LIMIT 1
"""

ADVANCE: Final[LiteralString] = """
UPDATE graphwright.backfills SET
    next_at = %(next_at)s, made = made + %(made)s, refused = refused + %(refused)s,
    reason = COALESCE(%(reason)s, reason),
    not_before = CASE WHEN %(waits)s THEN now() + interval '10 seconds' END
WHERE tenant = %(tenant)s AND backfill_id = %(backfill_id)s
"""

END: Final[LiteralString] = """
UPDATE graphwright.backfills SET
    status = %(status)s, reason = COALESCE(%(reason)s, reason), ended_at = now()
WHERE tenant = %(tenant)s AND backfill_id = %(backfill_id)s
"""


class Backfilling:
    """Carries out the backfills of all tenants."""

    def __init__(
        self,
        pool: AsyncPool,
        runs: ManyRuns,
        evaluator: Evaluator,
        storage: GraphwrightStorage,
    ) -> None:
        self._pool = pool
        self._runs = runs
        self._firing = Firing(evaluator)
        self._storage = storage
        self._going = False

    async def step(self) -> int:
        """Let each backfill go on; how many due times were passed, and runs cancelled.

        Raises psycopg.OperationalError and PoolTimeout where the database is away.
        """
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(UNDER_WAY)).fetchall()
        self._going = bool(rows)
        return sum([await self._step(row) for row in rows])

    async def next_at(self) -> datetime | None:
        """When to look again, while there are backfills that go on when their runs end."""
        return datetime.now(UTC) + _LOOK if self._going else None

    async def _step(self, asked: DictRow) -> int:
        doomed: list[RunId] = []
        passed = 0
        made: list[Made] = []
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(LOCK, asked)).fetchone()
            if row is None:  # it has ended, or waits, or another process lets it go on
                return 0
            unfinished = await (await connection.execute(UNFINISHED, asked)).fetchall()
            room = row["max_running"] - len(unfinished)
            if row["status"] == "cancelling":
                doomed = [RunId(r["run_id"]) for r in unfinished if r["status"] != "cancelling"]
                if not unfinished:
                    await connection.execute(END, {**asked, "status": "cancelled", "reason": None})
            elif (fault := self._fault(row)) and not unfinished:
                await connection.execute(END, {**asked, "status": "failed", "reason": fault})
            elif not fault and room > 0:
                if due := await self._ask(row, room):
                    passed, made = await self._advance(connection, row, due)
                elif not unfinished:
                    await _end(connection, asked, row["refused"])
        for each in made:
            self._runs.settle(each)
        if doomed:
            await asyncio.to_thread(self._cancel, TenantId(row["tenant"]), doomed)
        return passed + len(doomed)

    def _fault(self, row: DictRow) -> str:
        """Why the timer that it was asked for is no longer understood, if it is not."""
        try:
            self._firing.prepare(row["config"])
        except ValueError as error:
            return storable(str(error), _MAX_REASON)
        return ""

    async def _advance(
        self,
        connection: AsyncConnection,
        row: DictRow,
        asked: Sequence[tuple[datetime, Wanted | NoParams]],
    ) -> tuple[int, list[Made]]:
        """Make these runs: how many of the due times are passed by, and what to settle."""
        wanted = [each for _, each in asked if isinstance(each, Wanted)]
        outcomes, made = await make_runs(connection, self._runs, wanted, quickly=False)
        results = iter(outcomes)
        progress: dict[str, Any] = {"made": 0, "refused": 0, "reason": None, "waits": False}
        next_at = row["next_at"]
        for due_at, each in asked:
            outcome = next(results) if isinstance(each, Wanted) else each
            if isinstance(outcome, str):
                progress["made"] += 1
            elif isinstance(outcome, ConcurrencyConflict | NotYet) or is_passing(outcome):
                progress["waits"] = True  # this due time is tried again, and those after it
                break
            else:
                progress["refused"] += 1
                progress["reason"] = storable(f"{due_text(due_at)}: {outcome}", _MAX_REASON)
            next_at = due_at + _SECOND
        await connection.execute(ADVANCE, {**row, **progress, "next_at": next_at})
        return progress["made"] + progress["refused"], made

    async def _ask(self, row: DictRow, room: int) -> list[tuple[datetime, Wanted | NoParams]]:
        """The runs of the next due times, at most as many as there is ``room`` for: none where
        there are no more due times."""
        # One that was refused last asks whether it can go on at all.
        most = room if row["not_before"] is None else 1
        begun = time.monotonic()
        timer = Timer(
            TenantId(row["tenant"]),
            TriggerId(row["trigger_id"]),
            GraphId(row["graph_id"]),
            row["name"],
            row["config"],
        )
        backfill_id = row["backfill_id"]
        tags = {BACKFILL_TAG: backfill_id}
        recurrence = self._firing.prepare(timer.config).recurrence
        asked: list[tuple[datetime, Wanted | NoParams]] = []
        for due_at in islice(recurrence.between(row["next_at"], row["to_at"]), most):
            try:
                each = await asyncio.to_thread(
                    self._firing.ask, timer, due_at, tags, quickly=False, backfill_id=backfill_id
                )
            except NoParams as error:
                each = error
            asked.append((due_at, each))
            if time.monotonic() - begun > _SECONDS:
                break
        return asked

    def _cancel(self, tenant: TenantId, run_ids: Sequence[RunId]) -> None:
        with connect(self._storage.postgres_url) as connection:
            for run_id in run_ids:
                try:
                    cancel(connection, self._storage.writer, tenant, run_id)
                except (Conflict, NotFound):
                    _log.info("run %s has ended by itself", run_id)


async def _end(connection: AsyncConnection, asked: DictRow, refused: int) -> None:
    badly = await (await connection.execute(BADLY_ENDED, asked)).fetchone()
    status = "failed" if refused or badly is not None else "succeeded"
    await connection.execute(END, {**asked, "status": status, "reason": None})
