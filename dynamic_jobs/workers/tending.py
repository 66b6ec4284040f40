"""What every worker does beside executing runs, so that nothing is needed that could be missing:
it keeps its lease, takes over what dead workers held, and moves waiting runs on."""

import asyncio
import logging
import math
import os
import random
import socket
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, LiteralString

import psycopg

from dynamic_jobs.controlling.telling import Request, wishes
from dynamic_jobs.queueing.admission import admit_async, tenants_waiting
from dynamic_jobs.queueing.holding import release_missed
from dynamic_jobs.queueing.leases import Beat, beat, lost, suspects
from dynamic_jobs.queueing.promotion import next_solo, promote
from dynamic_jobs.queueing.taking_over import give_up, strays, take_over
from dynamic_jobs.workers.solo_runs import SoloRuns
from foundation.database import AsyncConnection, async_connect
from foundation.ids import GraphId, RunId, TenantId

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How late the tender may notice what nobody told it."""
_BEATS_PER_LEASE: Final = 4
_LOCK_WAITS_PER_LEASE: Final = 8
"""A pause between beats and a wait for a lock make no gap that counts as an outage."""
_TENANTS_PER_LOOK: Final = 100

# Somebody may stand still in a transaction: what he has locked must not stop the heart.
GIVE_WAY: Final[LiteralString] = "SELECT set_config('lock_timeout', %s, false)"


class Tender:
    """The tending of one worker. :meth:`run` ends when it is cancelled."""

    def __init__(
        self,
        database_url: str,
        worker: str,
        pool: int,
        lease_seconds: float,
        *,
        held: Callable[[], Mapping[RunId, tuple[TenantId, int]]],
        lose: Callable[[RunId, int], None],
        heed: Callable[[Request], None],
        wake: Callable[[], None],
        drain: Callable[[], None],
        solo: SoloRuns,
        alone: bool = False,
    ) -> None:
        """``held`` gives the worker's runs with their tenants and epochs; ``lose`` is called with a
        run and an epoch under which the worker has it no more, ``heed`` with what is wanted of one
        that it has, ``wake`` when runs have become ready, ``drain`` when the operator wants this
        worker drained. One that is ``alone`` leaves what is not its own to others: there may be
        very many of its kind.
        """
        self._url = database_url
        self._worker = worker
        self._pool = pool
        self._lease = lease_seconds
        self._pace = min(lease_seconds / _BEATS_PER_LEASE, _LOOK_SECONDS)
        self._held = held
        self._lose = lose
        self._heed = heed
        self._wake = wake
        self._drain = drain
        self._solo = solo
        self._alone = alone
        self._host = socket.gethostname()
        self._poked = asyncio.Event()
        self.registered = asyncio.Event()
        """Set once the others know of this worker: before that it must claim nothing."""
        self._beaten = 0.0
        self._beaten_at: datetime | None = None
        """The same by PostgreSQL's clock."""
        self._in_touch_since = 0.0
        """Since when it has said so without a gap in which others may have seemed dead."""
        self._after: TenantId | None = None
        self._after_graph: GraphId | None = None
        self._after_solo = TenantId("")
        self._unseen: dict[str, float] = {}
        self._strays: dict[tuple[RunId, int], float] = {}

    @property
    def beaten_at(self) -> float:
        """When it last said that the worker lives, by ``time.monotonic``; 0 before that."""
        return self._beaten

    def poke(self) -> None:
        """Something may have changed: look at once."""
        self._poked.set()

    async def run(self) -> None:
        connection: AsyncConnection | None = None
        try:
            while True:
                try:
                    if connection is None:
                        connection = await self._connected()
                    pause = await self._tend(connection)
                except psycopg.Error as error:
                    _log.warning("the worker's lease and the queue cannot be tended: %s", error)
                    if connection is not None:
                        await connection.close()
                    connection = None
                    pause = self._pace
                await self._rest(pause)
        finally:
            if connection is not None:
                await connection.close()

    async def _connected(self) -> AsyncConnection:
        connection = await async_connect(self._url)
        patience = f"{self._lease / _LOCK_WAITS_PER_LEASE:f}s"
        await connection.execute(GIVE_WAY, (patience,))
        return connection

    async def _tend(self, connection: AsyncConnection) -> float:
        """One round. How long to rest after it, in seconds."""
        if self._alone:
            await self._keep_lease(connection)
            await self._heed_wishes(connection)
            return self._pace
        promoted = await promote(connection)
        if promoted.runs:
            self._wake()
        if self._is_due():
            # In this order: a jump of PostgreSQL's clock up to the look shows in the beat.
            found = await suspects(connection, self._lease)
            await self._keep_lease(connection)
            await self._take_over(connection, found)
            await self._give_up_strays(connection)
            await self._heed_wishes(connection)
            await self._admit(connection)
            await self._start_solo(connection)
        rest = max(0.0, self._beaten + self._pace - time.monotonic())
        return rest if promoted.next_due is None else min(rest, promoted.next_due)

    def _is_due(self) -> bool:
        """Whether it is time for the next heartbeat."""
        return time.monotonic() - self._beaten >= self._pace

    async def _rest(self, seconds: float) -> None:
        self._poked.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            pass

    async def _keep_lease(self, connection: AsyncConnection) -> None:
        now = time.monotonic()
        told = await beat(connection, self._worker, self._host, os.getpid(), self._pool)
        gap = self._gap(now, told)
        self._beaten, self._beaten_at = now, told.at
        if gap > self._lease / 2:
            self._in_touch_since = time.monotonic()
        if self.registered.is_set() and (told.registered or gap > self._lease):
            await self._check_leases(connection)
        self.registered.set()
        if told.draining:
            self._drain()

    def _gap(self, now: float, told: Beat) -> float:
        """Seconds since the last beat, by our clock or PostgreSQL's, whichever says more.

        Ours stands still while the machine is suspended, and others judge by PostgreSQL's.
        """
        if self._beaten_at is None:
            return math.inf
        # The row alone does not tell: who declares that he idles writes the time into it too.
        before = min(self._beaten_at, told.seen_at or self._beaten_at)
        return max(now - self._beaten, (told.at - before).total_seconds())

    async def _check_leases(self, connection: AsyncConnection) -> None:
        """The heart stood still for so long that others may have taken our runs over."""
        held = self._held()
        for run_id in await lost(connection, held):
            _log.warning("run %s was taken over by another worker", run_id)
            self._lose(run_id, held[run_id][1])

    async def _take_over(self, connection: AsyncConnection, found: Mapping[str, bool]) -> None:
        now = time.monotonic()
        if not self._may_judge(now):
            self._unseen = {}
            return
        stale = [worker for worker, unseen in found.items() if not unseen]
        self._unseen = {w: self._unseen.get(w, now) for w, unseen in found.items() if unseen}
        dead = [w for w, since in self._unseen.items() if now - since > self._lease]
        if not stale and not dead:
            return
        for run_id, strikes in (await take_over(connection, self._lease, stale, dead)).items():
            _log.warning("run %s was lost by its worker and is queued again (%d)", run_id, strikes)
        self._wake()

    def _may_judge(self, now: float) -> bool:
        """Not after an outage: the others had it too, and no time yet to say that they live."""
        missed = now - self._beaten > self._lease / 2
        return not missed and now - self._in_touch_since >= self._lease

    async def _give_up_strays(self, connection: AsyncConnection) -> None:
        """A connection that broke in a claim's commit took the answer with it.

        Runs that have just been claimed, or are being handed back, look the same for a moment.
        """
        now = time.monotonic()
        found = await strays(connection, self._worker, self._held())
        self._strays = {stray: self._strays.get(stray, now) for stray in found}
        unknown = [stray for stray, since in self._strays.items() if now - since > self._lease]
        if unknown:
            for run_id in await give_up(connection, self._worker, unknown):
                _log.warning("run %s was claimed and never arrived; it is queued again", run_id)
            self._wake()

    async def _heed_wishes(self, connection: AsyncConnection) -> None:
        """Who wished it may have died before it told us."""
        held = {run_id: tenant for run_id, (tenant, _) in self._held().items()}
        for request in await wishes(connection, held):
            self._heed(request)

    async def _admit(self, connection: AsyncConnection) -> None:
        """Until the next heartbeat is due: it does not wait for all who wait for places."""
        after = self._after or TenantId("")
        tenants = await tenants_waiting(connection, after, _TENANTS_PER_LOOK)
        is_last = len(tenants) < _TENANTS_PER_LOOK
        if self._after is None and tenants:  # workers that start together are to begin apart
            tenants = tenants[random.randrange(len(tenants)) :]  # noqa: S311 - no secret
        for tenant in tenants:
            self._after = tenant
            try:
                await admit_async(connection, [tenant])
            except psycopg.errors.LockNotAvailable:
                _log.warning("places of tenant %s are locked: its runs wait", tenant)
            if self._is_due():
                break
        else:
            if is_last and self._after is not None:
                self._after = TenantId("")
        self._after_graph = await release_missed(connection, self._after_graph, self._is_due)

    async def _start_solo(self, connection: AsyncConnection) -> None:
        while self._solo.has_room:
            found, self._after_solo = await next_solo(
                connection, self._after_solo, take_struck=not self._solo.has_struck
            )
            if found is None:
                return
            self._solo.start(found.run_id, struck=found.struck)
