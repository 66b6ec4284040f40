"""Events on their way to clients: the batches that all share, and each client's own inbox."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from dynamic_jobs.reading.events import RunEvent
from foundation.errors import GraphwrightError

E = TypeVar("E")
T = TypeVar("T")


class SlowClient(GraphwrightError):
    """A client took its events more slowly than they came; it may resume after its last one."""

    code: ClassVar[str] = "slow_client"
    status: ClassVar[int] = 503


class Shared(list[E]):
    """What many clients get alike. Nobody changes it."""

    __slots__ = ("_made",)

    def __init__(self, items: Iterable[E] = ()) -> None:
        super().__init__(items)
        self._made: dict[Callable[..., Any], Any] = {}

    def made(self, make: Callable[[Sequence[E]], T]) -> T:
        """``make`` of this, called once however many clients ask."""
        found = self._made.get(make)
        if found is None:
            found = self._made[make] = make(self)
        return found


Batch: TypeAlias = Shared[RunEvent]
"""Events of one run, in order."""


class Inbox(Generic[E]):
    """Batches on their way to one client; iterating gives them as they were put.

    At most ``limit`` events wait, but for one batch larger than that in an empty inbox. What comes
    on top overflows: everything that waits is dropped, and iterating raises :class:`SlowClient`.
    """

    __slots__ = (
        "_beat", "_ended", "_error", "_limit", "_size", "_waiter", "_waiting", "overflowed",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        self.overflowed = False
        self._limit = limit
        self._waiting: deque[Shared[E]] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._beat = False
        self._ended = False
        self._error: Exception | None = None

    def put(self, batch: Shared[E]) -> None:
        """Does nothing after the end."""
        if self._ended:
            return
        size = len(batch)
        if self.overflowed or (self._waiting and self._size + size > self._limit):
            self.overflowed = True
            self._forget()
        else:
            self._waiting.append(batch)
            self._size += size
        self._wake()

    def clear(self) -> None:
        """Forget what waits, and that it was too much: its reader gets it from PostgreSQL."""
        self.overflowed = False
        self._forget()

    def beat(self) -> None:
        """Make whoever iterates turn round once, with None, if nothing else waits."""
        self._beat = True
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come. Iterating gives what still waits, then stops or raises.

        The first end counts.
        """
        if not self._ended:
            self._ended, self._error = True, error
        self._wake()

    def cut(self, error: Exception) -> None:
        """:meth:`end`, and what still waits is not given any more."""
        if not self._ended:
            self.clear()
        self.end(error)

    def raise_error(self) -> None:
        """Raise what the inbox was ended with, whatever waits."""
        if self._error is not None:
            raise self._error

    def __aiter__(self) -> "Inbox[E]":
        return self

    async def __anext__(self) -> Shared[E] | None:
        while not (self._waiting or self.overflowed or self._ended or self._beat):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.overflowed:
            raise SlowClient(
                "events come faster than this client takes them",
                hint="connect again with the id of the last event that you got",
            )
        if self._waiting:
            batch = self._waiting.popleft()
            self._size -= len(batch)
            return batch
        if self._ended:
            self.raise_error()
            raise StopAsyncIteration
        self._beat = False
        return None

    def _forget(self) -> None:
        self._waiting.clear()
        self._size = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
