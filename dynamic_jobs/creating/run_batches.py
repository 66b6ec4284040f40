"""Group commit: runs that are triggered at the same time are created together.

Adaptive by construction, like the event writer: a run that finds nobody writing is written at once;
those that come while a batch is being written make up the next one. Nothing waits for a timer.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import psycopg

from dynamic_jobs.creating.new_run import CREATE
from foundation.database import AsyncConnection, AsyncPool
from foundation.errors import GraphwrightError
from foundation.ids import RunId

_MAX_RUNS: Final = 256
_MAX_BYTES: Final = 4 * 2**20


class InDoubt(GraphwrightError):
    """The run may have been created, or not: who triggers again may have two."""

    code: ClassVar[str] = "in_doubt"
    status: ClassVar[int] = 500


@dataclass(frozen=True, slots=True)
class _Waiting:
    run_id: RunId
    row: bytes
    created: asyncio.Future[bool]

    def settle(self, created: bool) -> None:
        if not self.created.done():  # its caller may have left
            self.created.set_result(created)

    def fail(self, error: Exception) -> None:
        if not self.created.done():
            self.created.set_exception(error)


class RunBatches:
    """Creates the runs of one event loop, a batch at a time."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        self._waiting: deque[_Waiting] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def create(self, run_id: RunId, row: bytes) -> bool:
        """Create the run of this row, an element of :data:`new_run.CREATE`'s values.

        When this returns, the run is durable; or it is not there, for the row asked for the
        published version and is not of it. A caller that is cancelled does not learn which.

        Raises:
            InDoubt: the connection broke, and the run may or may not be there.
            psycopg.OperationalError, psycopg_pool.PoolTimeout: the database does not answer; there
                is no such run.
        """
        waiting = _Waiting(run_id, row, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None:  # a task, so that no caller's end is the end of all of them
            self._writing = asyncio.create_task(self._write_all())
        return await waiting.created

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await self._writing

    async def _write_all(self) -> None:
        try:
            while batch := self._next():
                await self._write(batch)
        finally:
            self._writing = None

    def _next(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        room = _MAX_BYTES
        while self._waiting and len(batch) < _MAX_RUNS:
            if batch and len(self._waiting[0].row) > room:
                break
            waiting = self._waiting.popleft()
            if not waiting.created.done():  # nobody has left
                batch.append(waiting)
                room -= len(waiting.row)
        return batch

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            async with self._pool.connection() as connection:
                await _write(connection, batch)
        except Exception as error:  # the pool's: nothing was sent, and nobody need try again
            for waiting in (*batch, *self._waiting):
                waiting.fail(error)
            self._waiting.clear()


async def _write(connection: AsyncConnection, batch: Sequence[_Waiting]) -> None:
    """Commit a batch. A run that the database refuses costs only itself."""
    rows = b",".join([waiting.row for waiting in batch])
    try:
        cursor = await connection.execute(CREATE, {"runs": f"[{rows.decode()}]"}, prepare=True)
        created = {row["run_id"] for row in await cursor.fetchall()}
    except psycopg.Error as error:
        if connection.closed:  # before or after the commit: writing it again might double it
            for waiting in batch:
                waiting.fail(_in_doubt(waiting.run_id, error))
        elif len(batch) == 1:
            batch[0].fail(error)
        else:
            for waiting in batch:
                await _write(connection, [waiting])
    else:
        for waiting in batch:
            waiting.settle(waiting.run_id in created)


def _in_doubt(run_id: RunId, cause: Exception) -> InDoubt:
    error = InDoubt(
        "the database was lost while the run was being stored, and it may be there or not",
        hint=f"See whether `GET /api/v1/runs/{run_id}` finds it before you start another.",
        run_id=run_id,
    )
    error.__cause__ = cause
    return error
