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
from pathlib import Path
from typing import Final, LiteralString

import psycopg

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.execution import RunExecution
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.reading.stream import cancel
from dynamic_jobs.storage import event_storage_of
from dynamic_jobs.workers.instance import open_instance
from dynamic_jobs.workers.listener import listen
from dynamic_jobs.workers.queue import claim
from foundation.database import AsyncConnection, async_connect, pool
from foundation.ids import new_id
from foundation.settings import Limits, Settings
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

REGISTER: Final[LiteralString] = """
INSERT INTO graphwright.workers (worker, host, pid) VALUES (%s, %s, %s)
ON CONFLICT (worker) DO UPDATE SET idle = false, seen_at = now()
"""
SET_IDLE: Final[LiteralString] = """
UPDATE graphwright.workers SET idle = true, seen_at = now() WHERE worker = %s
RETURNING (
    SELECT extract(epoch FROM min(not_before) - now())::float FROM graphwright.run_queue
) AS next_due
"""
UNREGISTER: Final[LiteralString] = "DELETE FROM graphwright.workers WHERE worker = %s"


class Worker:
    """One worker process. :meth:`run` blocks until :meth:`stop` is called, by a signal say."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits
        self._id = new_id()
        self._stops = 0
        self._patience = settings.drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()

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

    def after_run(self) -> None:
        """Called on the event loop whenever a run has ended or was handed back."""

    def run(self) -> None:
        """Claim and execute runs until stopped."""
        settings = self._settings
        with (
            NodeRuntime(settings, self._limits, Catalogue.from_packages(node_types)) as runtime,
            pool(settings.database_url, size=_CONNECTIONS) as connections,
            open_instance(_dagster_home(settings.state), runtime) as instance,
        ):
            execution = RunExecution(
                runtime, Compiler(runtime), instance, connections, freed=self._wake.set
            )
            runtime.submit(self._serve(execution)).result()
            execution.close()
            event_storage_of(instance).writer.flush()

    async def _serve(self, execution: RunExecution) -> None:
        self._loop = asyncio.get_running_loop()
        listening = asyncio.create_task(
            listen(self._settings.database_url, self._wake.set, execution.interrupt, execution.runs)
        )
        try:
            _log.info(
                "worker %s is ready for %d runs at once", self._id, self._settings.worker_runs
            )
            await self._claim_until_stopped(execution)
            await self._drain(execution)
        finally:
            await cancel(listening)

    async def _claim_until_stopped(self, execution: RunExecution) -> None:
        connection: AsyncConnection | None = None
        while not self._stops:
            try:
                if connection is None:
                    connection = await async_connect(self._settings.database_url)
                    host = socket.gethostname()
                    await connection.execute(REGISTER, (self._id, host, os.getpid()))
                await self._claim_or_wait(connection, execution)
            except psycopg.OperationalError as error:
                _log.warning("the database is away, trying again: %s", error)
                if connection is not None:
                    await connection.close()
                connection = None
                await self._woken(_POLL_SECONDS)
        if connection is not None:
            try:  # the runs are to be drained whatever the database does
                await connection.execute(UNREGISTER, (self._id,))
            except psycopg.Error as error:
                _log.warning("the worker's row stays behind: %s", error)
            await connection.close()

    async def _claim_or_wait(self, connection: AsyncConnection, execution: RunExecution) -> None:
        self._wake.clear()
        if await self._claim(connection, execution):
            return
        if self._free(execution) <= 0:
            await self._wake.wait()
            return
        # Idle is declared before the queue is looked at again: a trigger that starts after the
        # declaration sends a wake-up, and one that had started before it is found by the looks.
        row = await (await connection.execute(SET_IDLE, (self._id,))).fetchone()
        next_due = row["next_due"] if row is not None else None
        for pause in _PAUSES:
            if await self._claim(connection, execution):
                return  # which has taken the declaration back
            due = pause if next_due is None else max(0.0, next_due)
            if await self._woken(min(pause, due)) or self._stops:
                return

    async def _claim(self, connection: AsyncConnection, execution: RunExecution) -> bool:
        free = self._free(execution)
        if free <= 0 or self._stops:
            return False
        claims = await claim(connection, self._id, free)
        for claimed in claims:
            task = asyncio.create_task(execution.execute(claimed))
            self._runs.add(task)
            task.add_done_callback(self._ended)
        return bool(claims)

    def _free(self, execution: RunExecution) -> int:
        most = self._settings.worker_runs
        held = len(self._runs)
        return min(most - (held - execution.waiting), most * _HELD_PER_BUSY - held)

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
        execution.interrupt_all("hand_back")
        if self._runs:
            _, stuck = await asyncio.wait(self._runs, timeout=_WIND_DOWN_SECONDS)
            if stuck:
                _log.error("%d runs could not be handed back", len(stuck))


def _dagster_home(state: Path) -> Path:
    return state / "dagster"
