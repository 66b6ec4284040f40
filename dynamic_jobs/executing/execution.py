"""Executing claimed runs through Dagster, all of them on the worker's event loop.

A run holds no thread: Dagster's run loop is an iterator, our executor in it yields while it has
nothing to do, and is continued when something happened. Only a re-execution of part of a graph,
whose plan Dagster works out, takes a thread.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

import psycopg
from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from dynamic_jobs.compiling.compiler import CompiledGraph, Compiler
from dynamic_jobs.compiling.prepared import NodeTypeUnavailable
from dynamic_jobs.control import run_record
from dynamic_jobs.executing.active import ActiveRun, Inbox, Interrupt
from dynamic_jobs.executing.executor import SUSPENDED
from dynamic_jobs.executing.progress import Progress, read_progress
from dynamic_jobs.executing.run_context import run_events
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.storage import LeaseLost, event_storage_of
from dynamic_jobs.workers.instance import WorkerInstance
from dynamic_jobs.workers.queue import Claim, hand_back
from foundation.database import Pool
from foundation.errors import Unavailable
from foundation.ids import RunId
from graph_defs.store import load_version

_log = logging.getLogger(__name__)

_ANOTHER_WORKER_SECONDS: Final = 2.0
"""How long a run that this worker cannot execute waits on the queue for another."""
_EARLY_CANCELS: Final = 1_000


class RunExecution:
    """Executes claimed runs. Everything is called on the event loop of ``runtime``."""

    def __init__(
        self,
        runtime: NodeRuntime,
        compiler: Compiler,
        instance: WorkerInstance,
        pool: Pool,
        freed: Callable[[], None],
    ) -> None:
        """``freed`` is called when a run starts to do nothing but wait."""
        self._freed = freed
        self._runtime = runtime
        self._compiler = compiler
        self._instance = instance
        self._writer = event_storage_of(instance).writer
        self._pool = pool
        self._threads = ThreadPoolExecutor(runtime.settings.worker_runs, thread_name_prefix="run")
        self._cancelled: OrderedDict[RunId, None] = OrderedDict()

    def close(self) -> None:
        """Release the threads; no run may be under way any more."""
        self._threads.shutdown()

    @property
    def held(self) -> int:
        """Runs that this worker holds."""
        return len(self._runtime.active)

    @property
    def busy(self) -> int:
        """Those of them that do more than wait."""
        return sum(not active.only_waits for active in self._runtime.active.values())

    def interrupt(self, run_id: RunId, why: Interrupt) -> None:
        """Stop a run of this process, if it is one: its executor winds it down."""
        active = self._runtime.active.get(run_id)
        if active is not None:
            active.inbox.put(why)
        elif why == "cancel":  # it may just be on its way here
            self._cancelled[run_id] = None
            if len(self._cancelled) > _EARLY_CANCELS:
                self._cancelled.popitem(last=False)

    def interrupt_all(self, why: Interrupt) -> None:
        """Stop all runs of this process."""
        for active in list(self._runtime.active.values()):
            active.inbox.put(why)

    async def execute(self, claimed: Claim) -> None:
        """Execute a run to its end, or hand it back. Never raises: a run's fault is its own."""
        lease = claimed.lease
        self._writer.hold(lease)
        try:
            await self._execute(claimed)
        except NodeTypeUnavailable as error:
            _log.warning("handing run %s back: %s", lease.run_id, error)
            await self._hand_back(claimed, delay_seconds=_ANOTHER_WORKER_SECONDS)
        except LeaseLost:
            _log.warning("run %s was taken over by another worker", lease.run_id)
        except (psycopg.Error, Unavailable) as error:
            _log.warning("the database is away, handing run %s back: %s", lease.run_id, error)
            await self._hand_back(claimed, delay_seconds=_ANOTHER_WORKER_SECONDS)
        except Exception:
            _log.exception("run %s cannot be executed", lease.run_id)
            await self._fail(claimed)
        finally:
            self._runtime.active.pop(lease.run_id, None)
            self._writer.release(lease.run_id)

    async def _execute(self, claimed: Claim) -> None:
        lease, run = claimed.lease, claimed.dagster_run
        if run is None:
            raise LeaseLost("the run was deleted", run_id=lease.run_id)
        wake = asyncio.Event()
        partial = run.step_keys_to_execute is not None or run.resolved_op_selection is not None
        active = ActiveRun(
            tenant=lease.tenant,
            run_id=lease.run_id,
            params=claimed.params,
            trigger=claimed.trigger,
            parent_run_id=claimed.parent_run_id,
            created_at=claimed.created_at,
            inbox=Inbox() if partial else Inbox(wake.set),
            dagster_run=run,
            freed=self._freed,
        )
        self._runtime.active[lease.run_id] = active
        if lease.run_id in self._cancelled:
            active.inbox.put("cancel")
        if claimed.cancelling:
            self._report(run, DagsterEventType.PIPELINE_CANCELED)
        elif partial:
            await self._in_thread(claimed, run)
        else:
            compiled = await self._prepared(claimed, active)
            self._announce(run, resumed=claimed.resumed)
            events = run_events(
                compiled,
                self._runtime,
                self._instance,
                self._writer,
                active,
                resumed=claimed.resumed,
            )
            await _drive(events, wake)
        await self._runtime.committed(self._writer, lease.run_id)
        if active.interrupt == "hand_back":
            await self._hand_back(claimed)
        elif active.interrupt == "wait" and active.resume_at is not None:
            await self._hand_back(claimed, "waiting", active.resume_at - time.time())

    async def _prepared(self, claimed: Claim, active: ActiveRun) -> CompiledGraph:
        """The graph, and in ``active`` what had been done of it: mostly at hand."""
        compiled = self._compiler.cached(claimed.graph_version_id)
        if compiled is None:
            compiled = await asyncio.to_thread(self._compile, claimed)
        if claimed.resumed:
            active.progress = await asyncio.to_thread(self._progress, claimed, compiled)
        else:
            active.progress = Progress()
        return compiled

    def _compile(self, claimed: Claim) -> CompiledGraph:
        with self._pool.connection() as connection:
            version = load_version(connection, claimed.lease.tenant, claimed.graph_version_id)
        return self._compiler.compile(version)

    def _progress(self, claimed: Claim, compiled: CompiledGraph) -> Progress:
        lease, nodes = claimed.lease, list(compiled.graph.nodes)
        with self._pool.connection() as connection:
            return read_progress(
                connection, lease.tenant, lease.run_id, nodes, waited=claimed.waited
            )

    async def _in_thread(self, claimed: Claim, run: DagsterRun) -> None:
        """Part of a graph, as the Dagster UI re-executes it."""
        compiled = self._compiler.cached(claimed.graph_version_id) or await asyncio.to_thread(
            self._compile, claimed
        )
        self._announce(run, resumed=claimed.resumed)
        await self._runtime.committed(self._writer, RunId(run.run_id))

        def execute() -> None:
            job = InMemoryJob(compiled.job)
            status = DagsterRunStatus.STARTED if claimed.resumed else DagsterRunStatus.STARTING
            for _ in execute_run_iterator(
                job, run.with_status(status), self._instance, resume_from_failure=claimed.resumed
            ):
                pass  # the storage has them

        await asyncio.get_running_loop().run_in_executor(self._threads, execute)

    def _announce(self, run: DagsterRun, *, resumed: bool) -> None:
        if resumed:
            self._report(run, DagsterEventType.RUN_RESUMED)
        else:
            self._report(run, DagsterEventType.PIPELINE_DEQUEUED)
            self._report(run, DagsterEventType.PIPELINE_STARTING)

    async def _fail(self, claimed: Claim) -> None:
        """End a run that cannot be executed by a fault of ours: it must not come back for ever."""
        lease = claimed.lease
        lease.error = {
            "code": "internal",
            "message": "the run could not be executed",
            "hint": "the worker's log says why",
        }
        if claimed.dagster_run is not None:
            self._report(claimed.dagster_run, DagsterEventType.PIPELINE_FAILURE)
            await self._runtime.committed(self._writer, lease.run_id)

    def _report(self, run: DagsterRun, kind: DagsterEventType) -> None:
        self._writer.append(run_record(RunId(run.run_id), run.job_name, kind))

    async def _hand_back(
        self,
        claimed: Claim,
        status: Literal["queued", "waiting"] = "queued",
        delay_seconds: float = 0.0,
    ) -> None:
        def work() -> None:
            with self._pool.connection() as connection:
                hand_back(connection, claimed.lease, status, delay_seconds)

        try:
            await asyncio.to_thread(work)
        except psycopg.Error as error:
            _log.warning("run %s could not be handed back: %s", claimed.lease.run_id, error)


async def _drive(events: Iterator[DagsterEvent], wake: asyncio.Event) -> None:
    for event in events:
        if event is SUSPENDED:
            await wake.wait()
            wake.clear()
