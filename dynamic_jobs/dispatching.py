"""The transactions in which what waits for a sensor or schedule becomes runs.

Whoever dispatches takes rows off a queue, has their runs made, and writes down what became of them
and the tick, all in one of these. So any number of dispatchers may do it at once, and be killed at
any moment.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from dynamic_jobs.creating.making import make_runs
from dynamic_jobs.creating.many import Made, ManyRuns, Outcome, Wanted
from dynamic_jobs.ticks import Instigator, Tick, Ticks
from foundation.database import AsyncConnection, AsyncPool
from foundation.ids import RunId


class Transaction:
    """One that is open. Its statements go over ``connection``."""

    def __init__(
        self,
        connection: AsyncConnection,
        runs: ManyRuns,
        ticks: Ticks,
        began_at: float,
        began: float,
        *,
        quickly: bool,
    ) -> None:
        """It began at this Unix time, which was this monotonic time."""
        self.connection = connection
        self._runs = runs
        self._ticks = ticks
        self._began_at = began_at
        self._began = began
        self._quickly = quickly
        self._made: list[Made] = []
        self._tick: Tick | None = None

    async def make(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        """An outcome for each run that is wanted; see :func:`make_runs`."""
        outcomes, made = await make_runs(self.connection, self._runs, wanted, quickly=self._quickly)
        self._made += made
        return outcomes

    async def record(self, run_ids: Sequence[RunId], *, others: int, reason: str) -> None:
        """Write the tick, if anything was decided; the arguments are those of
        :meth:`Ticks.record`."""
        if run_ids or others:
            ended_at = self._began_at + time.monotonic() - self._began
            self._tick = await self._ticks.record(
                self.connection, self._began_at, ended_at, run_ids, others=others, reason=reason
            )

    def committed(self) -> None:
        """Do what comes after the commit."""
        if self._tick is not None:
            self._ticks.keep(self._tick)
        for each in self._made:
            self._runs.settle(each)


class Transactions:
    """Those of one dispatcher, which works for one instigator.

    ``quickly`` as in :meth:`ManyRuns.create_many`.
    """

    def __init__(
        self, pool: AsyncPool, runs: ManyRuns, instigator: Instigator, *, quickly: bool
    ) -> None:
        self._pool = pool
        self._runs = runs
        self._instigator = instigator
        self._ticks = Ticks(instigator)
        self._quickly = quickly

    @asynccontextmanager
    async def begin(self, began_at: float) -> AsyncGenerator[Transaction | None]:
        """A transaction that is committed at the end of the block, of a tick that began at this
        Unix time. None while the instigator is switched off.

        Raises psycopg.OperationalError and PoolTimeout where the database is away; then nothing has
        happened.
        """
        began = time.monotonic()
        async with self._pool.connection() as connection, connection.transaction():
            if not await self._instigator.is_on(connection):
                yield None
                return
            transaction = Transaction(
                connection, self._runs, self._ticks, began_at, began, quickly=self._quickly
            )
            yield transaction
        transaction.committed()
