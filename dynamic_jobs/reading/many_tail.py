"""The tail of all events of a tenant, for everyone in this process who follows them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from dynamic_jobs.reading.events import RunEvent
from dynamic_jobs.reading.many_log import NO_EVENTS, Found, ManyPage
from dynamic_jobs.reading.many_position import Position
from dynamic_jobs.reading.stream_inbox import Inbox, Shared
from foundation.errors import Unavailable
from foundation.ids import GraphId

_log = logging.getLogger(__name__)

Read: TypeAlias = Callable[[int, int | None, int, bool], Awaitable[ManyPage]]
"""Of transactions from one to another, the events above an id; and whether something holds them
back, so that it is worth looking whose transaction that is."""

_HELD_SECONDS: Final = (0.002, 0.25)
_LONG_HELD_SECONDS: Final = 0.01
_BEGIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Placed:
    """What was :class:`Found`, and the place right after it."""

    event: RunEvent
    graph_id: GraphId
    labels: frozenset[str]
    transaction: int
    position: Position


Chunk: TypeAlias = Shared[Placed]
"""Events of many runs in the order of their ids, all with positions of the same transactions."""


class ManyTail:
    """Reads what is new when it hears of it, or every so often; each event once, for all inboxes.

    A transaction that has begun and not ended holds back what later ones wrote: until it ends, the
    tail looks again and again.
    """

    def __init__(self, read: Read, silence_seconds: float) -> None:
        self._read = read
        self._silence_seconds = silence_seconds
        self._inboxes: set[Inbox[Placed]] = set()
        self._news = asyncio.Event()
        self._between_chunks = asyncio.Event()
        self._error: Exception | None = None
        self._followers = 0
        self._part: tuple[int, int] | None = None
        """Of a chunk that was given out in part: the bound of its transactions, and the last id."""
        self._done: int = 0
        """Every event of a transaction below this was given out."""
        self._floor = 0
        """Events of transactions from ``_done`` on have ids above it."""
        self._floors: deque[tuple[int, int]] = deque()
        """Transactions, and what the newest event was when they had not begun."""
        self._given = 0
        """The newest event that was given out."""
        self._newest = 0
        """The newest that there was when last looked."""
        self._long_held = False
        """Whether events have waited for some time for a transaction to end."""
        self._safe = (0, 0)
        """As ``_floor`` and ``_done``, but made of what is committed for good: after a crash the
        server may use the numbers of transactions again that wrote nothing."""

    @asynccontextmanager
    async def filling(self, inbox: Inbox[Placed]) -> AsyncGenerator[tuple[Position, int]]:
        """The inbox gets every chunk from now on.

        Gives the place before them, and the transaction up to which all was given out by then.
        """
        self._followers += 1
        try:
            while not self._between_chunks.is_set():
                await self._between_chunks.wait()
            if self._error is not None:
                raise self._error
            self._inboxes.add(inbox)
            floor, done = self._safe
            yield Position(floor, done, done, 0), self._done
        finally:
            self._inboxes.discard(inbox)
            self._followers -= 1
            if not self._followers:
                self._news.set()

    def hear(self, _message: str = "") -> None:
        """There is news."""
        self._news.set()

    def end(self, error: Exception) -> None:
        """End all inboxes, and refuse new ones."""
        self._error = error
        self._between_chunks.set()
        for inbox in self._inboxes:
            inbox.end(error)

    async def run(self) -> None:
        """Go on until nobody follows any more."""
        await self._begin()
        held = _HELD_SECONDS[0]
        while True:
            if self._part is None:
                self._between_chunks.set()
            waits: bool = self._part is not None or self._given < self._newest
            held = min(2 * held, _HELD_SECONDS[1]) if waits else _HELD_SECONDS[0]
            self._long_held = held > _LONG_HELD_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(held if waits else self._silence_seconds):
                    await self._news.wait()
            self._news.clear()
            if not self._followers:
                return
            self._between_chunks.clear()
            try:
                await self._advance()
            except Unavailable as error:
                _log.warning("cannot read the events of a tenant, will try again: %s", error)
                if self._part is None:
                    self._floor, self._done = self._safe
                    self._floors.clear()

    async def _begin(self) -> None:
        """Find where to start: who asks from now on gets all that is committed from now on."""
        first = page = await self._read(0, None, NO_EVENTS, False)
        delay = _HELD_SECONDS[0]
        deadline = time.monotonic() + _BEGIN_SECONDS
        while page.settled < first.next:  # these may have ids already, lower than the newest
            if time.monotonic() > deadline:
                raise Unavailable(
                    "a transaction takes long, and no stream of many runs can begin",
                    hint="connect again",
                )
            await asyncio.sleep(delay)
            delay = min(2 * delay, _HELD_SECONDS[1])
            page = await self._read(0, None, NO_EVENTS, True)
        self._floor = self._given = self._newest = first.newest
        self._done = first.next
        self._safe = (first.newest, 0)

    async def _advance(self) -> None:
        """Give out one chunk: all that is settled."""
        upto, after = self._part or (None, self._floor)
        reached = upto
        while True:
            page = await self._read(self._done, upto, after, self._long_held)
            if page.full and upto is None:
                upto = page.settled
            if page.found:
                reached = upto or max(found.transaction for found in page.found) + 1
                self._given = max(self._given, page.last_id)
                chunk = place(page.found, self._floor, self._done, reached)
                for inbox in self._inboxes:
                    inbox.put(chunk)
            if not page.full:
                break
            assert upto is not None
            after = page.last_id
            self._part = upto, after
            await asyncio.sleep(0)  # let those who follow take it
        self._part = None
        if reached is not None:
            self._safe = (self._floor, reached)
        self._newest = page.newest
        self._done = page.settled if upto is None else upto
        self._floors.append((page.next, page.newest))
        while self._floors and self._floors[0][0] <= self._done:
            self._floor = max(self._floor, self._floors.popleft()[1])


def place(found: Sequence[Found | Placed], floor: int, done: int, upto: int) -> Chunk:
    """These events of transactions from ``done`` to below ``upto``, with their places."""
    return Shared(
        Placed(
            each.event,
            each.graph_id,
            each.labels,
            each.transaction,
            Position(floor, done, upto, int(each.event["id"])),
        )
        for each in found
    )
