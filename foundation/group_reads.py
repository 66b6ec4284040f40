"""Group reads: rows that many callers ask for at the same time are read together.

Adaptive as group commit is: who finds few reading is served at once; those who come while others
are served make up the next batch. Nothing waits for a timer, and nobody gets what was read before
it was asked for.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Final, Generic, TypeAlias, TypeVar

_MAX_KEYS: Final = 8
"""Of a batch: its rows may be big, and the event loop takes them in one go."""
_MAX_READERS: Final = 4
"""Batches of one group that are read at once."""

Group = TypeVar("Group", bound=Hashable)
Key = TypeVar("Key", bound=Hashable)
Row = TypeVar("Row")

Read: TypeAlias = Callable[[Group, Sequence[Key]], Awaitable[Mapping[Key, Row]]]
"""The rows of these keys. What it raises is raised to all who wait for one of them."""


class _Asked(Generic[Key, Row]):
    """What is wanted of one group, and who reads it."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Key, asyncio.Future[Row | None]]] = deque()
        self.readers: set[asyncio.Task[None]] = set()

    def batch(self) -> list[tuple[Key, asyncio.Future[Row | None]]]:
        size = min(len(self.waiting), _MAX_KEYS)
        return [self.waiting.popleft() for _ in range(size)]


class GroupReads(Generic[Group, Key, Row]):
    """Reads rows for one event loop. Those of different groups, such as tenants, never together."""

    def __init__(self, read: Read[Group, Key, Row]) -> None:
        self._read = read
        self._asked: dict[Group, _Asked[Key, Row]] = {}

    async def get(self, group: Group, key: Key) -> Row | None:
        """The row, None where there is none. Others may have the same one: leave it as it is.

        Raises what ``read`` raises. Cancelled with what reads, as at the end of the event loop.
        """
        asked = self._asked.setdefault(group, _Asked())
        found: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        asked.waiting.append((key, found))
        if len(asked.readers) < _MAX_READERS:
            self._start(group, asked)
        return await found

    def _start(self, group: Group, asked: _Asked[Key, Row]) -> None:
        # A task, so that no caller's end is the end of all of them.
        reader = asyncio.create_task(self._read_all(group, asked))
        asked.readers.add(reader)
        reader.add_done_callback(partial(self._ended, group, asked))

    def _ended(self, group: Group, asked: _Asked[Key, Row], reader: asyncio.Task[None]) -> None:
        # Here and not at the end of the task: one that is cancelled at once never begins.
        asked.readers.discard(reader)
        if asked.waiting and not reader.cancelled():
            self._start(group, asked)  # for those who came after it had looked
        elif not asked.readers:
            del self._asked[group]
            for _, found in asked.waiting:
                found.cancel()

    async def _read_all(self, group: Group, asked: _Asked[Key, Row]) -> None:
        while batch := asked.batch():
            if wanted := [(key, found) for key, found in batch if not found.done()]:
                await self._read_batch(group, wanted)  # the others have left

    async def _read_batch(
        self, group: Group, wanted: Sequence[tuple[Key, asyncio.Future[Row | None]]]
    ) -> None:
        try:
            rows = await self._read(group, list(dict.fromkeys(key for key, _ in wanted)))
        except Exception as error:
            for _, found in wanted:
                if not found.done():
                    found.set_exception(error)
        else:
            for key, found in wanted:
                if not found.done():
                    found.set_result(rows.get(key))
        finally:
            for _, found in wanted:
                found.cancel()  # changes nothing, unless this was cancelled
