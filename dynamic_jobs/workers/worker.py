"""The warm worker: a long-lived process that claims queued runs and executes them, many at once.

Everything is imported and connected before the first claim; no process is started for a run. One
event loop does it all; threads only write events, and run what blocks. On SIGTERM the worker claims
nothing more, gives its runs ``drain_seconds`` to finish, and hands back the rest: another worker
goes on with them, without repeating what has completed.
"""

import asyncio
import logging
import math
import os
import socket
from functools import partial
from typing import ClassVar, Final, LiteralString

import psycopg

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.execution import RunExecution
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.launcher import GraphwrightRunLauncher
from dynamic_jobs.placing.placer import Placer, PlatformOf
from dynamic_jobs.placing.watcher import Watcher
from dynamic_jobs.platforms.leftovers import Leftovers
from dynamic_jobs.queueing.claiming import FIRST_TURN, Claim, claim
from dynamic_jobs.queueing.leases import UNREGISTER
from dynamic_jobs.retention.pruning import Pruner
from dynamic_jobs.storage import event_storage_of
from dynamic_jobs.workers.adopting import adopt_launches
from dynamic_jobs.workers.instance import WorkerInstance, open_instance
from dynamic_jobs.workers.listener import listen
from dynamic_jobs.workers.placing_room import PlacingRoom
from dynamic_jobs.workers.prefork_child import ChildLink
from dynamic_jobs.workers.solo_runs import SoloRuns
from dynamic_jobs.workers.telling import sample, telling
from dynamic_jobs.workers.tending import Tender
from dynamic_jobs.workers.upkeep import Task, upkeep
from foundation.database import AsyncConnection, Pool, async_connect, pool
from foundation.ids import new_id
from foundation.settings import Limits, Settings
from foundation.tasks import cancel
from foundation.telemetry.tracing import tracing
from graph_defs.catalogue import Catalogue

_log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0
"""How long a wake-up may be missed: the fallback when a notification is lost."""
_PAUSES: Final = (0.005, 0.05, _POLL_SECONDS)
"""Between looks at the queue by an idle worker: soon again at first, for triggers under way."""
_HELD_PER_BUSY: Final = 64
"""Runs that a worker holds at most for each that it executes at once: the others wait."""
_CONNECTIONS: Final = 4
_WIND_DOWN_SECONDS: Final = 15.0
"""For runs that are handed back, which the database may hold up."""

SET_IDLE: Final[LiteralString] = """
UPDATE graphwright.workers SET idle = true, seen_at = now() WHERE worker = %s
"""


class Worker:
    """One worker process. :meth:`run` blocks until :meth:`stop` is called, by a signal say."""

    places_runs: ClassVar[bool] = True
    """Whether it starts processes, here and elsewhere, for runs that are to have their own."""

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        pool: int | None = None,
        metrics: socket.socket | None = None,
        link: ChildLink | None = None,
    ) -> None:
        """``pool`` is the process that keeps this worker, if it is not on its own; by ``link`` it
        has others start processes for runs that are executed alone. On ``metrics`` it tells of
        itself, and of the others of its pool.
        """
        self._link = link
        self._settings = settings
        self._metrics = metrics
        self._limits = limits
        self._pool = pool or os.getpid()
        self.id = new_id()
        self._turn = FIRST_TURN
        self._stops = 0
        self._patience = settings.drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()
        threads = settings.placing_threads if self.places_runs else 0
        self._room = PlacingRoom(self.id, threads, _POLL_SECONDS)

    def stop(self) -> None:
        """Stop gracefully; a second call does not wait for the runs to finish.

        Any thread, and any signal handler, may call it.
        """
        self._stops += 1
        loop = self._loop
        if loop is not None:
            loop.call_soon_threadsafe(self._wake.set)

    def retire(self) -> None:
        """Claim nothing more, and stop when the last run has ended, however long that takes."""
        self._patience = math.inf
        self.stop()

    def drain(self) -> None:
        """Called on the event loop when the operator wants this worker to be drained."""
        if not self._stops:
            self.stop()

    def hurry(self) -> None:
        """Hand back what runs."""
        self.stop()
        self.stop()

    def after_run(self) -> None:
        """Called on the event loop whenever a run has ended or was handed back."""

    def run(self) -> None:
        """Claim and execute runs until stopped."""
        settings = self._settings
        with (
            tracing(settings, "worker") as traced,
            NodeRuntime(
                settings, self._limits, Catalogue.from_packages(node_types), traced
            ) as runtime,
            pool(settings.database_url, size=_CONNECTIONS) as connections,
            open_instance(settings.state / "dagster", runtime) as instance,
        ):
            solo = SoloRuns(self._link, settings.worker_solo_runs)
            placer = None
            if self.places_runs:
                writer = event_storage_of(instance).writer
                placer = Placer(
                    connections, writer, self._platform_of(instance), solo, settings.placing_threads
                )
            execution = RunExecution(
                runtime,
                Compiler(runtime),
                instance,
                connections,
                freed=self._wake.set,
                placer=placer,
            )
            runtime.submit(self._serve(execution, instance, connections, solo)).result()
            execution.close()
            if placer is not None:
                placer.close()
            event_storage_of(instance).writer.flush()

    async def claim(self, connection: AsyncConnection, limit: int) -> list[Claim]:
        """Take up to ``limit`` runs off the queue."""
        claims = await claim(connection, self.id, limit, self._turn)
        if claims:
            self._turn = claims[-1].turn
        return claims

    async def _serve(
        self,
        execution: RunExecution,
        instance: WorkerInstance,
        connections: Pool,
        solo: SoloRuns,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        tender = Tender(
            self._settings.database_url,
            self.id,
            self._pool,
            self._settings.lease_seconds,
            held=execution.leases,
            lose=execution.lose,
            heed=execution.heed,
            wake=self._wake.set,
            drain=self.drain,
            solo=solo,
            alone=not self.places_runs,
        )
        tasks: dict[str, Task] = {
            "the lease and the queue's tending": tender.run,
            "listening": partial(
                listen,
                self._settings.database_url,
                wake=self._wake.set,
                poke=tender.poke,
                heed=execution.heed,
                held=execution.runs,
            ),
            "its gauges": partial(
                sample, lambda: self._waiting_and_executing(execution), connections
            ),
        }
        if self.places_runs:
            tasks |= {
                "the removal of old runs": Pruner(self._settings).run,
                "the adoption of launches": partial(
                    adopt_launches, self._settings.database_url, instance
                ),
                "the watch over runs elsewhere": self._watcher(instance, connections).run,
                "the removal of what steps have left": Leftovers(self._settings.database_url).run,
            }
        try:
            with telling(self._settings, self._metrics, lambda: tender.beaten_at):
                async with upkeep(tasks):
                    await self._until(tender.registered)
                    _log.info(
                        "worker %s is ready for %d runs at once",
                        self.id, self._settings.worker_runs,
                    )  # fmt: skip
                    await self._claim_until_stopped(execution)
                    solo.stop()
                    await self._drain(execution)
        finally:
            await self._unregister()
            self._loop = None  # whoever calls stop() now comes too late

    def _platform_of(self, instance: WorkerInstance) -> PlatformOf:
        launcher = instance.run_launcher
        if not isinstance(launcher, GraphwrightRunLauncher):
            raise TypeError("dagster.yaml names another run launcher than Graphwright's")
        return launcher.platform

    def _watcher(self, instance: WorkerInstance, connections: Pool) -> Watcher:
        return Watcher(
            self._settings.database_url,
            connections,
            event_storage_of(instance).writer,
            self._platform_of(instance),
            threads=self._settings.placing_threads,
            timeout_seconds=self._settings.placing_timeout_seconds,
        )

    async def _until(self, registered: asyncio.Event) -> None:
        waiting = asyncio.create_task(registered.wait())
        while not self._stops and not waiting.done():
            self._wake.clear()
            woken = asyncio.create_task(self._wake.wait())
            await asyncio.wait({waiting, woken}, return_when=asyncio.FIRST_COMPLETED)
            await cancel(woken)
        await cancel(waiting)

    async def _claim_until_stopped(self, execution: RunExecution) -> None:
        connection: AsyncConnection | None = None
        while not self._stops:
            try:
                if connection is None:
                    connection = await async_connect(self._settings.database_url)
                await self._claim_or_wait(connection, execution)
            except psycopg.OperationalError as error:
                _log.warning("the database is away, trying again: %s", error)
                if connection is not None:
                    await connection.close()
                connection = None
                await self._woken(_POLL_SECONDS)
        if connection is not None:
            await connection.close()

    async def _unregister(self) -> None:
        """Nothing is held any more, or what is cannot be handed back and is to be taken over."""
        try:
            async with await async_connect(self._settings.database_url) as connection:
                await connection.execute(UNREGISTER, (self.id,))
        except psycopg.Error as error:
            _log.warning("the worker's row stays behind: %s", error)

    async def _claim_or_wait(self, connection: AsyncConnection, execution: RunExecution) -> None:
        self._wake.clear()
        if await self._claim(connection, execution):
            return
        if self._free(execution) <= 0:
            await self._woken(_POLL_SECONDS)  # there may be room to place some
            return
        # Idle is declared before the queue is looked at again: a trigger that starts after the
        # declaration sends a wake-up, and one that had started before it is found by the looks.
        await connection.execute(SET_IDLE, (self.id,))
        for pause in _PAUSES:
            if await self._claim(connection, execution):
                return  # which has taken the declaration back
            if await self._woken(pause) or self._stops:
                return

    async def _claim(self, connection: AsyncConnection, execution: RunExecution) -> bool:
        """Take what there is room for; whether there was something."""
        if self._stops:
            return False
        unplaced = await self._room.claim(connection)
        self._begin(execution, unplaced)
        free = self._free(execution)
        if free <= 0 or self._stops:
            return bool(unplaced)
        claims = await self.claim(connection, free)
        if self.places_runs:
            self._begin(execution, await self._room.set_aside(connection, claims))
        else:
            self._begin(execution, claims)
        return bool(unplaced or claims)

    def _begin(self, execution: RunExecution, claims: list[Claim]) -> None:
        for claimed in claims:
            task = asyncio.create_task(execution.execute(claimed))
            self._runs.add(task)
            if self.places_runs and claimed.goes_elsewhere:
                self._room.take(task)
            task.add_done_callback(self._ended)

    def _free(self, execution: RunExecution) -> int:
        most = self._settings.worker_runs
        held = len(self._runs)
        return min(most - (held - self._waiting(execution)), most * _HELD_PER_BUSY - held)

    def _waiting(self, execution: RunExecution) -> int:
        """How many runs do nothing here but wait, for a time or for their platform."""
        return execution.waiting + self._room.placing

    def _waiting_and_executing(self, execution: RunExecution) -> tuple[int, int]:
        waiting = self._waiting(execution)
        return waiting, len(self._runs) - waiting

    def _ended(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        self._wake.set()
        self.after_run()

    async def _woken(self, seconds: float) -> bool:
        """Wait at most so long; whether there is a reason to look at once."""
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _drain(self, execution: RunExecution) -> None:
        if not self._runs:
            return
        patience = "all the time" if math.isinf(self._patience) else f"{self._patience:g} s"
        _log.info("stopping: %d runs have %s to finish", len(self._runs), patience)
        deadline = asyncio.get_running_loop().time() + self._patience
        while self._runs and self._stops < 2:  # a second call of stop() is in a hurry
            left = deadline - asyncio.get_running_loop().time()
            self._wake.clear()
            if left <= 0 or not await self._woken(left):
                break
        execution.hand_back_all()
        if self._runs:
            _, stuck = await asyncio.wait(self._runs, timeout=_WIND_DOWN_SECONDS)
            if stuck:
                _log.error("%d runs could not be handed back", len(stuck))
