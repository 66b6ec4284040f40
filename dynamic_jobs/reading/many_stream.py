"""Live streams of all runs of a tenant; who follows one graph, or one type, takes a part of them.

    client ◄── follow() ◄── Inbox ◄─┐
    client ◄── follow() ◄── Inbox ◄─┴─ ManyTail ◄── woken by RedisFeed, or every second
                  └─ history ──► PostgreSQL ◄──┘

PostgreSQL alone says what there is: Redis only says when to look. A place in such a stream
(:mod:`many_position`) is good at any process.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, TypeAlias

import psycopg

from dynamic_jobs.reading.event_log import BadEventId
from dynamic_jobs.reading.events import tenant_channel_of
from dynamic_jobs.reading.many_log import NO_EVENTS, ManyPage, read_many, read_settled
from dynamic_jobs.reading.many_position import Position
from dynamic_jobs.reading.many_tail import Chunk, ManyTail, Placed, place
from dynamic_jobs.reading.stream_feed import RedisFeed
from dynamic_jobs.reading.stream_inbox import Inbox, Shared
from dynamic_jobs.reading.stream_tasks import TurnsByTenant, uncancelled
from foundation.database import AsyncPool
from foundation.errors import Unavailable
from foundation.ids import TenantId
from foundation.tenant_pool import TenantPool

PAGE_EVENTS: Final = 2_000
FIRST_PAGE_EVENTS: Final = 250
"""Of a client that resumes: it may soon leave again, and wants its first event soon."""

Start: TypeAlias = Callable[[Coroutine[Any, Any, None], str], None]
"""Starts a task, by a name."""


class ManyStreams:
    """The streams of many runs of one process; a part of :class:`stream.StreamHub`."""

    def __init__(
        self,
        pool: AsyncPool,
        tenants: TenantPool,
        feed: RedisFeed,
        start: Start,
        turns: TurnsByTenant,
        *,
        inbox_events: int,
        silence_seconds: float,
    ) -> None:
        self._pool = pool
        self._tenants = tenants
        self._inbox_events = inbox_events
        self._feed = feed
        self._start = start
        self._turns = turns
        self._silence_seconds = silence_seconds
        self._tails: dict[TenantId, ManyTail] = {}
        self._closed: Exception | None = None

    def inbox(self) -> Inbox[Placed]:
        """An inbox for :meth:`follow`."""
        return Inbox(self._inbox_events)

    def close(self, error: Exception) -> None:
        """End every stream with ``error``, and refuse new ones."""
        self._closed = error
        for tail in self._tails.values():
            tail.end(error)

    async def follow(
        self, tenant: TenantId, after: Position | None, inbox: Inbox[Placed]
    ) -> AsyncGenerator[Position | Chunk]:
        """The place where the stream starts; then every event after it, each once.

        From ``after`` on, or what is committed after the first item was given. An empty chunk is
        yielded at the inbox's beat.

        Raises:
            BadEventId: there is no such place in this database.
            SlowClient: too many events waited for whoever iterates.
            ShuttingDown: this process is going away.
            Unavailable: PostgreSQL does not answer.
        """
        position = after
        if after is not None:
            now = await self._read_in_turn(tenant, 0, 0, NO_EVENTS, 1)
            if now.next < after.upto:
                raise BadEventId(
                    "this place is not in this database's past", hint="Begin anew, without an id."
                )
        while True:
            async with self._tail(tenant).filling(inbox) as (here, edge):
                if position is None:
                    position = here
                    yield position
                else:
                    if position is after:
                        yield position
                    async for chunk in self._history(tenant, position, edge, inbox):
                        yield chunk
                    read = max(edge, position.upto)
                    position = Position(position.floor, read, read, 0)
                if not inbox.overflowed:
                    async for chunk in _fresh(inbox, max(edge, position.upto)):
                        yield chunk
                    return
            inbox.clear()  # it was too much while the history was read: read on

    async def _history(
        self, tenant: TenantId, position: Position, edge: int, inbox: Inbox[Placed]
    ) -> AsyncGenerator[Chunk]:
        """The rest of a position's chunk, then all from there to below the transaction ``edge``."""
        for done, upto, after in (
            (position.done, position.upto, position.event),
            (position.upto, edge, 0),
        ):
            floor = max(position.floor, after)
            limit = min(FIRST_PAGE_EVENTS, PAGE_EVENTS)
            while done < upto:
                page = await self._read_in_turn(tenant, done, upto, floor, limit)
                limit = min(4 * limit, PAGE_EVENTS)
                if page.found:
                    yield place(page.found, position.floor, done, upto)
                inbox.raise_error()
                floor = page.last_id
                if not page.full:
                    break

    def _tail(self, tenant: TenantId) -> ManyTail:
        if self._closed is not None:
            raise self._closed
        tail = self._tails.get(tenant)
        if tail is None:

            async def read(done: int, upto: int | None, after: int, held: bool) -> ManyPage:
                return await self._read(tenant, done, upto, after, PAGE_EVENTS, held=held)

            tail = self._tails[tenant] = ManyTail(read, self._silence_seconds)
            self._start(self._run(tenant, tail), tenant_channel_of(tenant))
        return tail

    async def _run(self, tenant: TenantId, tail: ManyTail) -> None:
        channel = tenant_channel_of(tenant)
        try:
            await self._feed.watch(channel, tail.hear)
            await tail.run()
        except Unavailable as error:
            tail.end(error)
        except Exception as error:
            tail.end(error)
            raise
        finally:
            # At once, without awaiting: who comes from now on gets a tail of its own.
            del self._tails[tenant]
            await self._feed.unwatch(channel, tail.hear)

    async def _read_in_turn(
        self, tenant: TenantId, done: int, upto: int, after: int, limit: int
    ) -> ManyPage:
        async with self._turns.of(tenant):
            return await self._read(tenant, done, upto, after, limit)

    async def _read(
        self,
        tenant: TenantId,
        done: int,
        upto: int | None,
        after: int,
        limit: int,
        *,
        held: bool = False,
    ) -> ManyPage:
        return await uncancelled(self._page(tenant, done, upto, after, limit, held=held))

    async def _page(
        self, tenant: TenantId, done: int, upto: int | None, after: int, limit: int, *, held: bool
    ) -> ManyPage:
        known = upto or 0  # a bound that somebody has seen settled
        try:
            if held and upto is None:
                async with self._pool.connection() as connection:
                    known = await read_settled(connection)
            async with self._tenants.connection(tenant) as connection:
                return await read_many(connection, tenant, done, upto, after, limit, known=known)
        except psycopg.OperationalError as error:
            raise Unavailable("the database does not answer", hint="connect again") from error


async def _fresh(inbox: Inbox[Placed], edge: int) -> AsyncGenerator[Chunk]:
    """What comes into the inbox, without what transactions below ``edge`` wrote."""
    async for chunk in inbox:
        if chunk is None:
            yield Shared()
            continue
        first = chunk[0].position
        if first.done >= edge:
            yield chunk
        elif rest := [each for each in chunk if each.transaction >= edge]:
            yield place(rest, first.floor, edge, first.upto)
