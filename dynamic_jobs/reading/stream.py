"""Live streams of runs: a tail of the event log, pushed by Redis and always mended by PostgreSQL.

    client ◄── follow() ◄── Inbox ◄─┐
    client ◄── follow() ◄── Inbox ◄─┴─ RunTail ◄── RedisFeed (one connection per process)
                  └─ history ─┐           └─ gaps ─┐   ▲
                              └──────► PostgreSQL ◄┴── StreamHub._watch_silence

Each watched run has one tail, however many follow it. A tail knows the id of the last event that it
gave out; a message says which event came before its own. Where these differ, or a run was silent
for a second, the tail reads PostgreSQL. So nothing is missed, repeated or out of order, whatever
Redis loses, repeats, reorders, or while it is away: only later.

Ways to end, all of which let a client resume after the last event that it got: the terminal event;
``SlowClient``; ``ShuttingDown``; ``Unavailable`` when PostgreSQL does not answer.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ClassVar, Final, LiteralString, Self

import psycopg

from dynamic_jobs.reading.event_log import EventPage, read_events
from dynamic_jobs.reading.events import RunEvent, channel_of
from dynamic_jobs.reading.stream_feed import RedisFeed
from dynamic_jobs.reading.stream_tail import Inbox, RunTail
from foundation.database import AsyncPool
from foundation.errors import NotFound, Unavailable
from foundation.ids import RunId, TenantId
from foundation.redis import AsyncRedis

_log = logging.getLogger(__name__)

PAGE_EVENTS: Final = 1_000
_CANCEL_AGAIN_SECONDS: Final = 0.5

# One statement for all silent runs, so that a thousand idle streams cost one query a second.
NEWS: Final[LiteralString] = """
SELECT r.run_id::text
FROM unnest(%s::text[], %s::uuid[], %s::bigint[]) AS w (tenant, run_id, position)
JOIN graphwright.runs r ON r.tenant = w.tenant AND r.run_id = w.run_id
WHERE r.last_event_id > w.position OR r.status IN ('succeeded', 'failed', 'cancelled')
"""


class ShuttingDown(Unavailable):
    """This process is going away; another one can go on where this stream ends."""

    code: ClassVar[str] = "shutting_down"


class StreamHub:
    """The live streams of one process. Use it with ``async with``, on one event loop."""

    def __init__(
        self,
        pool: AsyncPool,
        redis: AsyncRedis,
        *,
        inbox_events: int = 4_096,
        silence_seconds: float = 1.0,
    ) -> None:
        """A client is cut when more than ``inbox_events`` events wait for it.

        A run of which nothing was heard for ``silence_seconds`` is looked up in PostgreSQL.
        """
        self._pool = pool
        self._feed = RedisFeed(redis, self._heard)
        self._inbox_events = inbox_events
        self._silence_seconds = silence_seconds
        self._tails: dict[str, RunTail] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._start(self._feed.run(), "run-feed")
        self._start(self._watch_silence(), "run-silence")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every stream with :class:`ShuttingDown`. Calling it again does no harm."""
        self._closed = True
        for tail in self._tails.values():
            tail.end(_shutting_down())
        await cancel(*self._tasks)
        await self._feed.aclose()

    async def first_page(self, tenant: TenantId, run_id: RunId, after: int) -> EventPage:
        """What there is of a run above ``after``, at most ``PAGE_EVENTS`` of it.

        Raises :class:`NotFound`, and :class:`Unavailable` when PostgreSQL does not answer.
        """
        return await self._read(tenant, run_id, after)

    async def follow(
        self, tenant: TenantId, run_id: RunId, after: int, first: EventPage | None = None
    ) -> AsyncGenerator[Sequence[RunEvent]]:
        """Every event of a run with an id above ``after``, in order, each once, as it happens.

        Yields what is there, some events at a time, and returns after the terminal event. ``first``
        is the :meth:`first_page`, where it has been read already.

        Raises:
            NotFound: there is no such run, or it is another tenant's.
            SlowClient: too many events waited for whoever iterates.
            ShuttingDown: this process is going away.
            Unavailable: PostgreSQL does not answer.
        """
        page, position = first, after
        inbox: Inbox | None = None
        with ExitStack() as stack:
            while True:
                if page is None:
                    page = await self._read(tenant, run_id, position)
                position = page.last_id
                if page.events:
                    yield page.events
                if page.ended:
                    return
                full, page = page.full, None
                if full:
                    continue
                if inbox is None:
                    # The history is behind us and the run is this tenant's. Subscribe, and read
                    # again: between the two reads events may have come that nobody pushed.
                    tail = self._tail(tenant, run_id, position)
                    inbox = stack.enter_context(tail.inbox(self._inbox_events))
                    await tail.watched.wait()
                elif inbox.overflowed:
                    inbox.clear()
                else:
                    break
            async for events in inbox:
                fresh = [event for event in events if int(event["id"]) > position]
                if fresh:
                    position = int(fresh[-1]["id"])
                    yield fresh

    def _tail(self, tenant: TenantId, run_id: RunId, position: int) -> RunTail:
        if self._closed:
            raise _shutting_down()
        channel = channel_of(run_id)
        tail = self._tails.get(channel)
        if tail is None:
            tail = RunTail(tenant, run_id, position, self._read)
            self._tails[channel] = tail
            self._start(self._run(channel, tail), channel)
        return tail

    async def _run(self, channel: str, tail: RunTail) -> None:
        try:
            await self._feed.watch(channel)
            tail.watched.set()
            await tail.run()
        except Exception as error:
            tail.end(error)
            if not isinstance(error, NotFound):
                raise
        finally:
            # At once, without awaiting: who comes from now on gets a tail of its own.
            del self._tails[channel]
            await self._feed.unwatch(channel)

    async def _read(self, tenant: TenantId, run_id: RunId, after: int) -> EventPage:
        # In a task of its own: a server whose client leaves cancels again at every await, also at
        # the one that gives the connection back, and then the pool may lose it.
        reading = asyncio.create_task(self._page(tenant, run_id, after))
        reading.add_done_callback(_seen)
        return await asyncio.shield(reading)

    async def _page(self, tenant: TenantId, run_id: RunId, after: int) -> EventPage:
        try:
            async with self._pool.connection() as connection:
                return await read_events(connection, tenant, run_id, after, PAGE_EVENTS)
        except psycopg.OperationalError as error:
            raise Unavailable(
                "the database does not answer", hint="connect again", run_id=run_id
            ) from error

    def _heard(self, channel: str, message: str) -> None:
        if tail := self._tails.get(channel):
            tail.hear(message)

    async def _watch_silence(self) -> None:
        while True:
            await asyncio.sleep(self._silence_seconds / 4)
            since = time.monotonic() - self._silence_seconds
            silent = [tail for tail in self._tails.values() if tail.heard_at <= since]
            if not silent:
                continue
            try:
                news = await self._news(silent)
            except psycopg.OperationalError as error:
                _log.warning("cannot look for news of silent runs, will try again: %s", error)
                continue
            for tail in silent:
                if tail.run_id in news:
                    tail.check()
                else:
                    tail.heard_at = time.monotonic()

    async def _news(self, tails: Sequence[RunTail]) -> set[RunId]:
        columns = (
            [tail.tenant for tail in tails],
            [tail.run_id for tail in tails],
            [tail.position for tail in tails],
        )
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(NEWS, columns)).fetchall()
        return {row["run_id"] for row in rows}

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("the task %s broke", task.get_name(), exc_info=error)


def _seen(task: asyncio.Task[Any]) -> None:
    """Nobody may be left who takes the task's error; that is no news."""
    if not task.cancelled():
        task.exception()


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended, however they end.

    More than once if need be: what waits by Python 3.11's ``asyncio.wait_for``, such as for a
    connection of a pool, goes on when its cancellation and its result come at the same moment.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("this server is going away", hint="connect again")
