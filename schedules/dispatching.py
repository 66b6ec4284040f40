"""Timers become runs when they are due: what the timer schedule does, for our dispatcher and
Dagster's daemon.

A batch is one transaction. In it due timers are claimed, their runs are made, their next due times
and the schedule's tick are written. A due time has one run, whose id also follows from it.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, LiteralString

import orjson
import psycopg

from dynamic_jobs.creating.many import ManyRuns
from dynamic_jobs.dispatching import Transactions
from dynamic_jobs.ticks import Instigator
from foundation.database import AsyncConnection, AsyncPool
from graph_defs.expressions import Evaluator
from schedules.batch import Batch, Due, TimerLane, run_ids
from schedules.firing import Firing
from schedules.statements import CLAIM, CLAIM_BEHIND, END, FAULT, MOVE, NEXT_FIRE

_log = logging.getLogger(__name__)

_BATCH: Final = 256
"""Timers of one transaction, and runs but for the last timer's."""
_BEHIND: Final = 64
"""Timers of one transaction that catch up. They mostly want more than one run each."""
_MOST_EACH: Final = 20
"""Due times that a timer catches up with before others have their turns."""

_CLAIMS: Final[Mapping[TimerLane, tuple[LiteralString, int]]] = {
    "quick": (CLAIM, _BATCH),
    "behind": (CLAIM_BEHIND, _BEHIND),
    "costly": (CLAIM, 1),
}


class TimerDispatcher:
    """Dispatches the timers of one shard that are in one lane."""

    def __init__(
        self,
        pool: AsyncPool,
        runs: ManyRuns,
        evaluator: Evaluator,
        instigator: Instigator,
        *,
        lane: TimerLane = "quick",
    ) -> None:
        self._pool = pool
        self._transactions = Transactions(pool, runs, instigator, quickly=lane != "costly")
        self._firing = Firing(evaluator)
        self._instigator = instigator
        self._lane: TimerLane = lane

    async def dispatch(self, now: datetime | None = None) -> int:
        """Deal with up to 256 timers that are due, fewer of those that are behind, or with a costly
        one; how many they were.

        0 also while the schedule is switched off. Raises psycopg.OperationalError and PoolTimeout
        where the database is away; then nothing has happened.
        """
        now = now or datetime.now(UTC)
        async with self._transactions.begin(now.timestamp()) as transaction:
            if transaction is None:
                return 0
            batch = Batch(now)
            await batch.decide(
                await self._claim(transaction.connection, now),
                self._firing,
                self._instigator.tags,
                room=_BATCH,
                each=1 if self._lane == "costly" else _MOST_EACH,
            )
            if not batch.handled:
                return 0
            outcomes = await transaction.make(batch.wanted)
            batch.learn(outcomes)
            await _move(transaction.connection, batch)
            others, reason = batch.others()
            await transaction.record(run_ids(outcomes), others=others, reason=reason)
        await self._tell_owners(batch)
        return len(batch.handled)

    async def next_fire_at(self) -> datetime | None:
        """When the next run is to start, which may have passed; None where there is none."""
        values = {"lane": self._lane, "slices": self._instigator.slices}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(NEXT_FIRE, values, prepare=True)).fetchone()
        return None if row is None else row["fire_at"]

    async def _claim(self, connection: AsyncConnection, now: datetime) -> list[Due]:
        claim, limit = _CLAIMS[self._lane]
        values = {
            "lane": self._lane,
            "now": now,
            "slices": self._instigator.slices,
            "limit": limit,
        }
        cursor = await connection.execute(claim, values, prepare=True)
        return [Due.of(row, self._lane) for row in await cursor.fetchall()]

    async def _tell_owners(self, batch: Batch) -> None:
        """Not in the transaction: whoever changes a trigger locks it first, and its timer then."""
        faults = batch.faults()
        if not faults:
            return
        try:
            async with self._pool.connection() as connection, connection.cursor() as cursor:
                await cursor.executemany(FAULT, faults)
        except psycopg.Error as error:  # the tick has the first of them
            _log.warning("owners of timers are not told of faults: %s", error)


async def _move(connection: AsyncConnection, batch: Batch) -> None:
    moved = list(batch.moved())
    if moved:
        await connection.execute(MOVE, {"timers": orjson.dumps(moved).decode()}, prepare=True)
    staying = {each["trigger_id"] for each in moved}
    ended = [due.trigger_id for due in batch.handled if due.trigger_id not in staying]
    if ended:
        await connection.execute(END, {"ended": ended})
