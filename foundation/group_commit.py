"""Group commit: what many callers want to store at the same time is stored together.

Adaptive by construction: an item that finds nobody writing is written at once; those that come
while a batch is being written make up the next one. Nothing waits for a timer.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

import psycopg

from foundation.database import AsyncConnection, AsyncPool

_MAX_ITEMS: Final = 256
_MAX_BYTES: Final = 4 * 2**20

Item = TypeVar("Item")
Result = TypeVar("Result")

Store: TypeAlias = Callable[
    [AsyncConnection, Sequence[Item]], Awaitable[Sequence[Result | Exception]]
]
"""Commits items, and says in their order what became of each; an exception is raised to its caller.

Where it raises psycopg.Error and the connection lives, nothing was stored, and the items are tried
one by one, so that one which the database refuses costs only itself. Whatever else it raises ends
the batch and all that wait.
"""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    size: int
    stored: asyncio.Future[Result]

    def settle(self, result: Result | Exception) -> None:
        if self.stored.done():  # its caller has left
            return
        if isinstance(result, Exception):
            self.stored.set_exception(result)
        else:
            self.stored.set_result(result)


class GroupCommit(Generic[Item, Result]):
    """Stores the items of one event loop, a batch of at most 256 and 4 MiB at a time."""

    def __init__(
        self, pool: AsyncPool, store: Store[Item, Result], *, wait_seconds: float | None = None
    ) -> None:
        """``wait_seconds``: for a connection; None is as long as the pool says."""
        self._pool = pool
        self._store = store
        self._wait_seconds = wait_seconds
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self.bytes = 0
        """Of all items that are not stored yet."""

    async def add(self, item: Item, size: int) -> Result:
        """Store an item of about ``size`` bytes; what became of it.

        A caller that is cancelled does not learn that; its item is left out unless it is being
        written already.

        Raises what ``store`` says or raises, and psycopg.OperationalError or
        psycopg_pool.PoolTimeout where there is no connection, and nothing was sent.
        """
        stored: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, size, stored))
        self.bytes += size
        if self._writing is None:  # a task, so that no caller's end is the end of all of them
            self._writing = asyncio.create_task(self._write_all())
        return await stored

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            await self._writing

    async def _write_all(self) -> None:
        try:
            while batch := self._next():
                await self._write(batch)
                self.bytes -= sum(waiting.size for waiting in batch)
        finally:
            self._writing = None

    def _next(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        room = _MAX_BYTES
        while self._waiting and len(batch) < _MAX_ITEMS:
            if batch and self._waiting[0].size > room:
                break
            waiting = self._waiting.popleft()
            if waiting.stored.done():  # its caller has left, or it failed with those before it
                self.bytes -= waiting.size
                continue
            batch.append(waiting)
            room -= waiting.size
        return batch

    async def _write(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        try:
            async with self._pool.connection(timeout=self._wait_seconds) as connection:
                await self._write_to(connection, batch)
        except Exception as error:  # the database is away, for those that wait as well
            for waiting in (*batch, *self._waiting):
                waiting.settle(error)

    async def _write_to(
        self, connection: AsyncConnection, batch: Sequence[_Waiting[Item, Result]]
    ) -> None:
        try:
            results = await self._store(connection, [waiting.item for waiting in batch])
        except psycopg.Error as error:
            if connection.closed:
                raise
            if len(batch) == 1:
                batch[0].settle(error)
                return
            for waiting in batch:
                await self._write_to(connection, [waiting])
            return
        for waiting, result in zip(batch, results, strict=True):
            waiting.settle(result)
