"""The warm worker: a long-lived process that claims queued runs and executes them, many at once.

Everything is imported and connected before the first claim; no process is started for a run. On
SIGTERM it claims nothing more, gives its runs ``drain_seconds`` to finish, and hands back the rest:
another worker goes on with them, without repeating what has completed.
"""

import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Final, LiteralString

import psycopg

import node_types
from dynamic_jobs.compiler import Compiler
from dynamic_jobs.execution import RunExecution
from dynamic_jobs.listener import Listener
from dynamic_jobs.queue import Claim, claim
from dynamic_jobs.runtime import NodeRuntime
from dynamic_jobs.storage import event_storage_of
from dynamic_jobs.worker_instance import open_instance
from foundation.database import Connection, connect, pool
from foundation.ids import RunId, new_id
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue

_log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
"""How long a wake-up may be missed: the fallback when a notification is lost."""
_PAUSES = (0.005, 0.05, _POLL_SECONDS)
"""Between looks at the queue by an idle worker: soon again at first, for triggers under way."""

REGISTER: Final[LiteralString] = """
INSERT INTO graphwright.workers (worker, host, pid) VALUES (%s, %s, %s)
"""
SET_IDLE: Final[LiteralString] = """
UPDATE graphwright.workers SET idle = %s, seen_at = now() WHERE worker = %s
"""
UNREGISTER: Final[LiteralString] = "DELETE FROM graphwright.workers WHERE worker = %s"


def serve(settings: Settings, limits: Limits) -> None:
    """Work in this process until SIGTERM or SIGINT; a second one does not wait for the runs."""
    worker = Worker(settings, limits)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: worker.stop())
    worker.run()


class Worker:
    """One worker process. :meth:`run` blocks until :meth:`stop` is called, by a signal say."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits
        self._id = new_id()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._running: dict[RunId, Future[None]] = {}
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Stop gracefully; a second call does not wait for the runs to finish."""
        if self._stopping.is_set():
            self._settings = self._settings.model_copy(update={"drain_seconds": 0.0})
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Claim and execute runs until stopped."""
        settings = self._settings
        with (
            NodeRuntime(settings, self._limits, Catalogue.from_packages(node_types)) as runtime,
            pool(settings.database_url, size=settings.worker_runs) as connections,
            ThreadPoolExecutor(settings.worker_runs, thread_name_prefix="run") as threads,
            open_instance(_dagster_home(settings.state), runtime) as instance,
        ):
            writer = event_storage_of(instance).writer
            execution = RunExecution(runtime, Compiler(runtime), instance, connections)
            listener = Listener(
                settings.database_url, wake=self._wake.set, cancel=execution.interrupt
            )
            with listener:
                _log.info("worker %s is ready for %d runs at once", self._id, settings.worker_runs)
                self._serve(execution, threads)
                self._drain(execution)
            writer.flush()

    def _serve(self, execution: RunExecution, threads: ThreadPoolExecutor) -> None:
        connection: Connection | None = None
        while not self._stopping.is_set():
            try:
                if connection is None:
                    connection = connect(self._settings.database_url)
                    host = socket.gethostname()
                    connection.execute(REGISTER, (self._id, host, os.getpid()))
                self._claim_or_wait(connection, execution, threads)
            except psycopg.OperationalError as error:
                _log.warning("the database is away, trying again: %s", error)
                connection = self._forget(connection)
                self._stopping.wait(_POLL_SECONDS)
        if connection is not None:
            with suppress(psycopg.Error):  # the runs are to be drained whatever the database does
                connection.execute(UNREGISTER, (self._id,))
            connection.close()

    def _claim_or_wait(
        self, connection: Connection, execution: RunExecution, threads: ThreadPoolExecutor
    ) -> None:
        self._wake.clear()
        if self._claim(connection, execution, threads):
            return
        # Idle is declared before the queue is looked at again: a trigger that starts after the
        # declaration sends a wake-up, and one that had started before it is found by the looks.
        connection.execute(SET_IDLE, (True, self._id))
        for pause in _PAUSES:
            if self._claim(connection, execution, threads):
                break
            if self._wake.wait(pause):
                self._claim(connection, execution, threads)
                break
        connection.execute(SET_IDLE, (False, self._id))

    def _claim(
        self, connection: Connection, execution: RunExecution, threads: ThreadPoolExecutor
    ) -> bool:
        with self._lock:
            free = self._settings.worker_runs - len(self._running)
        if free <= 0 or self._stopping.is_set():
            return False
        claims = claim(connection, self._id, free)
        for claimed in claims:
            self._start(claimed, execution, threads)
        return bool(claims)

    def _start(self, claimed: Claim, execution: RunExecution, threads: ThreadPoolExecutor) -> None:
        run_id = claimed.lease.run_id
        with self._lock:
            future = threads.submit(execution.execute, claimed)
            self._running[run_id] = future
        future.add_done_callback(lambda _: self._finished(run_id))

    def _finished(self, run_id: RunId) -> None:
        with self._lock:
            self._running.pop(run_id, None)
        self._wake.set()

    def _drain(self, execution: RunExecution) -> None:
        running = dict(self._running)
        if not running:
            return
        _log.info(
            "stopping: %d runs have %.0f s to finish", len(running), self._settings.drain_seconds
        )
        started = time.monotonic()
        pending = set(running.values())
        while pending and time.monotonic() < started + self._settings.drain_seconds:
            _, pending = wait(pending, timeout=0.1)
        while pending:  # again and again: a run that was claimed just now has no inbox yet
            for run_id in running:
                execution.interrupt(run_id, "hand_back")
            _, pending = wait(pending, timeout=0.2)

    def _forget(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.close()
        self._id = new_id()  # the old row may be gone, or may not: a new one is never in doubt


def _dagster_home(state: Path) -> Path:
    return state / "dagster"
