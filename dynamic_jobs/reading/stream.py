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
from dynamic_jobs.reading.many_stream import ManyStreams
from dynamic_jobs.reading.stream_feed import RedisFeed
from dynamic_jobs.reading.stream_inbox import Batch, Inbox
from dynamic_jobs.reading.stream_tail import RunTail
from dynamic_jobs.reading.stream_tasks import TurnsByTenant, uncancelled
from foundation.database import AsyncPool
from foundation.errors import NotFound, Unavailable
from foundation.ids import RunId, TenantId
from foundation.redis import AsyncRedis
from foundation.tasks import cancel
from foundation.tenant_pool import TenantPool

_log = logging.getLogger(__name__)

PAGE_EVENTS: Final = 1_000
READS_OF_A_TENANT: Final = 4
"""At once. Sessions of PostgreSQL are few, and one client may open a thousand streams."""

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
        tenants: TenantPool,
        redis: AsyncRedis,
        *,
        inbox_events: int = 4_096,
        silence_seconds: float = 1.0,
    ) -> None:
        """``pool`` is for what is asked for all tenants at once.

        A client is cut when more than ``inbox_events`` events wait for it.

        A run of which nothing was heard for ``silence_seconds`` is looked up in PostgreSQL.
        """
        self._pool = pool
        self._tenants = tenants
        self._feed = RedisFeed(redis)
        self._inbox_events = inbox_events
        self._silence_seconds = silence_seconds
        self._tails: dict[str, RunTail] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._turns = TurnsByTenant(READS_OF_A_TENANT)
        self.many = ManyStreams(
            pool,
            tenants,
            self._feed,
            self._start,
            self._turns,
            inbox_events=inbox_events,
            silence_seconds=silence_seconds,
        )
        """Those of many runs."""

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
        self.many.close(_shutting_down())
        await cancel(*self._tasks)
        await self._feed.aclose()

    async def first_page(self, tenant: TenantId, run_id: RunId, after: int) -> EventPage:
        """What there is of a run above ``after``, at most ``PAGE_EVENTS`` of it.

        Raises :class:`NotFound`, and :class:`Unavailable` when PostgreSQL does not answer.
        """
        return await self._read(tenant, run_id, after)

    async def page(self, tenant: TenantId, run_id: RunId, after: int, limit: int) -> EventPage:
        """At most ``limit`` events of a run above ``after``; raises as :meth:`first_page`."""
        async with self._turns.of(tenant):
            return await uncancelled(self._page(tenant, run_id, after, limit))

    def inbox(self) -> Inbox[RunEvent]:
        """An inbox for :meth:`follow`."""
        return Inbox(self._inbox_events)

    async def follow(
        self,
        tenant: TenantId,
        run_id: RunId,
        after: int,
        first: EventPage | None = None,
        inbox: Inbox[RunEvent] | None = None,
    ) -> AsyncGenerator[Batch]:
        """Every event of a run with an id above ``after``, in order, each once, as it happens.

        Yields what is there, some events at a time, and returns after the terminal event. ``first``
        is the :meth:`first_page`, where it has been read already. Who gives an :meth:`inbox` can
        end the stream by it; an empty batch is yielded at its beat.

        Raises:
            NotFound: there is no such run, or it is another tenant's.
            SlowClient: too many events waited for whoever iterates.
            ShuttingDown: this process is going away.
            Unavailable: PostgreSQL does not answer.
        """
        page, position = first, after
        waiting = self.inbox() if inbox is None else inbox
        watching = False
        with ExitStack() as stack:
            while True:
                if page is None:
                    page = await self._read(tenant, run_id, position)
                position = page.last_id
                if page.events:
                    yield Batch(page.events)
                if page.ended:
                    return
                waiting.raise_error()
                full, page = page.full, None
                if full:
                    continue
                if not watching:
                    # The history is behind us and the run is this tenant's. Subscribe, and read
                    # again: between the two reads events may have come that nobody pushed.
                    watching = True
                    tail = self._tail(tenant, run_id, position)
                    stack.enter_context(tail.filling(waiting))
                    await tail.watched.wait()
                elif waiting.overflowed:
                    waiting.clear()
                else:
                    break
            async for batch in waiting:
                if batch is None:
                    yield Batch()
                elif int(batch[0]["id"]) > position:
                    yield batch
                elif fresh := [event for event in batch if int(event["id"]) > position]:
                    yield Batch(fresh)

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
            await self._feed.watch(channel, tail.hear)
            tail.watched.set()
            await tail.run()
        except Exception as error:
            tail.end(error)
            if not isinstance(error, NotFound):
                raise
        finally:
            # At once, without awaiting: who comes from now on gets a tail of its own.
            del self._tails[channel]
            await self._feed.unwatch(channel, tail.hear)

    async def _read(self, tenant: TenantId, run_id: RunId, after: int) -> EventPage:
        return await self.page(tenant, run_id, after, PAGE_EVENTS)

    async def _page(self, tenant: TenantId, run_id: RunId, after: int, limit: int) -> EventPage:
        try:
            async with self._tenants.connection(tenant) as connection:
                return await read_events(connection, tenant, run_id, after, limit)
        except psycopg.OperationalError as error:
            raise Unavailable(
                "the database does not answer", hint="connect again", run_id=run_id
            ) from error

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


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("this server is going away", hint="connect again")
