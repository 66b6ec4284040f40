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
from dataclasses import dataclass
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
from dynamic_jobs.storage import Lease, LeaseLost, event_storage_of
from dynamic_jobs.workers.instance import WorkerInstance
from dynamic_jobs.workers.queue import Claim, hand_back
from foundation.database import Pool
from foundation.errors import Unavailable
from foundation.ids import RunId, TenantId
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
        self._compiling: dict[str, asyncio.Task[CompiledGraph]] = {}

    def close(self) -> None:
        """Release the threads; no run may be under way any more."""
        self._threads.shutdown()

    @property
    def waiting(self) -> int:
        """How many runs of this worker do nothing but wait."""
        return sum(active.only_waits for active in self._runtime.active.values())

    def runs(self) -> dict[RunId, TenantId]:
        """The runs that this worker holds, and whose they are."""
        return {run_id: active.tenant for run_id, active in self._runtime.active.items()}

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
        back: _HandBack | None = None
        self._writer.hold(lease)
        try:
            back = await self._execute(claimed)
        except NodeTypeUnavailable as error:
            _log.warning("handing run %s back: %s", lease.run_id, error)
            back = _HandBack(delay_seconds=_ANOTHER_WORKER_SECONDS)
        except LeaseLost:
            _log.warning("run %s was taken over by another worker", lease.run_id)
        except (psycopg.OperationalError, psycopg.InterfaceError, Unavailable) as error:
            _log.warning("the database is away, handing run %s back: %s", lease.run_id, error)
            back = _HandBack(delay_seconds=_ANOTHER_WORKER_SECONDS)
        except Exception:
            _log.exception("run %s cannot be executed", lease.run_id)
            await self._fail(claimed)
        finally:
            self._runtime.active.pop(lease.run_id, None)
            self._writer.release(lease)
        if back is not None:  # only now, for this very worker may be the next to claim it
            await self._hand_back(claimed.lease, back)

    async def _execute(self, claimed: Claim) -> "_HandBack | None":
        lease, run = claimed.lease, claimed.dagster_run()
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
            self._report(claimed, DagsterEventType.PIPELINE_CANCELED)
        elif partial:
            await self._in_thread(claimed, run)
        else:
            compiled = await self._prepared(claimed, active)
            self._announce(claimed)
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
        match active.interrupt:
            case "hand_back":
                return _HandBack()
            case "wait" if active.resume_at is not None:
                return _HandBack("waiting", active.resume_at - time.time())
            case _:
                return None

    async def _prepared(self, claimed: Claim, active: ActiveRun) -> CompiledGraph:
        """The graph, and in ``active`` what had been done of it: mostly at hand."""
        compiled = await self._compiled(claimed)
        if claimed.resumed:
            active.progress = await asyncio.to_thread(self._progress, claimed, compiled)
        else:
            active.progress = Progress()
        return compiled

    async def _compiled(self, claimed: Claim) -> CompiledGraph:
        version_id = claimed.graph_version_id
        compiled = self._compiler.cached(version_id)
        if compiled is not None:
            return compiled
        compiling = self._compiling.get(version_id)
        if compiling is None:  # runs of a new graph come in numbers
            compiling = asyncio.create_task(asyncio.to_thread(self._compile, claimed))
            self._compiling[version_id] = compiling
            compiling.add_done_callback(lambda _: self._compiling.pop(version_id))
        return await asyncio.shield(compiling)

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
        compiled = await self._compiled(claimed)
        self._announce(claimed)
        await self._runtime.committed(self._writer, RunId(run.run_id))

        def execute() -> None:
            job = InMemoryJob(compiled.job)
            status = DagsterRunStatus.STARTED if claimed.resumed else DagsterRunStatus.STARTING
            for _ in execute_run_iterator(
                job, run.with_status(status), self._instance, resume_from_failure=claimed.resumed
            ):
                pass  # the storage has them

        await asyncio.get_running_loop().run_in_executor(self._threads, execute)

    def _announce(self, claimed: Claim) -> None:
        if claimed.resumed:
            self._report(claimed, DagsterEventType.RUN_RESUMED)
        else:
            self._report(claimed, DagsterEventType.PIPELINE_DEQUEUED)
            self._report(claimed, DagsterEventType.PIPELINE_STARTING)

    async def _fail(self, claimed: Claim) -> None:
        """End a run that cannot be executed by a fault of ours: it must not come back for ever."""
        lease = claimed.lease
        lease.outputs = None  # they may be what could not be stored
        lease.error = {
            "code": "internal",
            "message": "the run could not be executed",
            "hint": "the worker's log says why",
        }
        try:
            self._report(claimed, DagsterEventType.PIPELINE_FAILURE)
            await self._runtime.committed(self._writer, lease.run_id)
        except Exception:
            _log.exception("run %s could not even be ended", lease.run_id)

    def _report(self, claimed: Claim, kind: DagsterEventType) -> None:
        lease = claimed.lease
        self._writer.append(run_record(lease.run_id, claimed.job_name, kind), lease=lease)

    async def _hand_back(self, lease: Lease, back: "_HandBack") -> None:
        """Put the run back on the queue, whatever it takes: nobody else would."""

        def work() -> None:
            with self._pool.connection() as connection:
                hand_back(connection, lease, back.status, back.delay_seconds)

        while True:
            try:
                return await asyncio.to_thread(work)
            except psycopg.Error as error:
                _log.warning("run %s cannot be handed back yet: %s", lease.run_id, error)
            await asyncio.sleep(_ANOTHER_WORKER_SECONDS)


@dataclass(frozen=True, slots=True)
class _HandBack:
    """How a run goes back on the queue."""

    status: Literal["queued", "waiting"] = "queued"
    delay_seconds: float = 0.0


async def _drive(events: Iterator[DagsterEvent], wake: asyncio.Event) -> None:
    for event in events:
        if event is SUSPENDED:
            if wake.is_set():  # others have their turn all the same
                await asyncio.sleep(0)
            await wake.wait()
            wake.clear()
