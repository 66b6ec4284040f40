"""Executing claimed runs through Dagster, all of them on the worker's event loop.

A run holds no thread: Dagster's run loop is an iterator, our executor in it yields while it has
nothing to do, and is continued when something happened. Only a run of some ops of a job that was
launched with such a selection in Dagster, which makes another job of them, takes a thread.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import psycopg
from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from dynamic_jobs.compiling.compiler import CompiledGraph, Compiler
from dynamic_jobs.compiling.prepared import NodeTypeUnavailable
from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.controlling.telling import Request
from dynamic_jobs.executing.active import ActiveRun, Inbox, Interrupt
from dynamic_jobs.executing.executor import SUSPENDED
from dynamic_jobs.executing.outputs import OutputLost, adopt_outputs
from dynamic_jobs.executing.progress import Progress, nodes_in_flight, read_progress
from dynamic_jobs.executing.run_context import run_events
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.executing.step_events import run_paused
from dynamic_jobs.executing.watching import end_span
from dynamic_jobs.placing.placer import Placer, Unplaceable, run_lost
from dynamic_jobs.queueing.claiming import Claim
from dynamic_jobs.queueing.handing_back import hand_back
from dynamic_jobs.storage import Lease, LeaseLost, event_storage_of
from dynamic_jobs.storage.records import Record
from dynamic_jobs.workers.instance import WorkerInstance
from foundation.database import Pool
from foundation.errors import Unavailable
from foundation.ids import NodeId, RunId, TenantId
from foundation.telemetry.context import working_on
from foundation.telemetry.tracing import Span
from graph_defs.stored_versions import load_version

_log = logging.getLogger(__name__)

_ANOTHER_WORKER_SECONDS: Final = 2.0
"""How long a run that this worker cannot execute waits on the queue for another."""
_EARLY_REQUESTS: Final = 1_000
_INTERNAL: Final = {
    "code": "internal",
    "message": "the run could not be executed",
    "hint": "the worker's log says why",
}


class RunExecution:
    """Executes claimed runs. Everything is called on the event loop of ``runtime``."""

    def __init__(
        self,
        runtime: NodeRuntime,
        compiler: Compiler,
        instance: WorkerInstance,
        pool: Pool,
        freed: Callable[[], None],
        placer: Placer | None = None,
    ) -> None:
        """``freed`` is called when a run starts to do nothing but wait. Without a ``placer``, all
        are executed here, whatever their graphs say."""
        self._freed = freed
        self._placer = placer
        self._hands_back = False
        self._runtime = runtime
        self._compiler = compiler
        self._instance = instance
        self._writer = event_storage_of(instance).writer
        self._pool = pool
        self._threads = ThreadPoolExecutor(runtime.settings.worker_runs, thread_name_prefix="run")
        self._early: OrderedDict[RunId, Request] = OrderedDict()
        self._compiling: dict[str, asyncio.Task[CompiledGraph]] = {}
        self._leases: dict[RunId, Lease] = {}

    def close(self) -> None:
        """Release the threads; no run may be under way any more."""
        self._threads.shutdown()

    @property
    def waiting(self) -> int:
        """How many of the runs that are executed here do nothing but wait."""
        return sum(active.only_waits for active in self._runtime.active.values())

    def runs(self) -> dict[RunId, TenantId]:
        """The runs that this worker holds, and whose they are."""
        return {run_id: active.tenant for run_id, active in self._runtime.active.items()}

    def leases(self) -> dict[RunId, tuple[TenantId, int]]:
        """The runs that this worker holds: whose they are, and under which epoch."""
        return {run_id: (lease.tenant, lease.epoch) for run_id, lease in self._leases.items()}

    def lose(self, run_id: RunId, epoch: int) -> None:
        """The lease of this epoch was taken over: stop the run here, and write nothing more."""
        lease = self._leases.get(run_id)
        if lease is not None and lease.epoch == epoch:  # else it has come back here meanwhile
            lease.lost = True
            self.interrupt(run_id, "hand_back")

    def interrupt(self, run_id: RunId, why: Interrupt) -> None:
        """Stop a run of this process, if it is one: its executor winds it down."""
        active = self._runtime.active.get(run_id)
        if active is not None:
            active.inbox.put(why)

    def heed(self, request: Request) -> None:
        """A run is to be cancelled or paused, if it is one of this process."""
        if request.run_id in self._runtime.active:
            if request.wish == "cancel" or self._leases[request.run_id].epoch == request.epoch:
                self.interrupt(request.run_id, request.wish)
            return
        before = self._early.get(request.run_id)  # it may just be on its way here
        if before is None or before.wish == "pause":
            self._early[request.run_id] = request
        if len(self._early) > _EARLY_REQUESTS:
            self._early.popitem(last=False)

    def hand_back_all(self) -> None:
        """Hand all runs of this process back, and begin none of those that come."""
        self._hands_back = True
        for active in list(self._runtime.active.values()):
            active.inbox.put("hand_back")

    async def execute(self, claimed: Claim) -> None:
        """Execute a run to its end, or hand it back. Never raises: a run's fault is its own."""
        lease = claimed.lease
        working_on(lease.tenant, lease.run_id)
        back: _HandBack | None = None
        self._writer.hold(lease)
        self._leases[lease.run_id] = lease
        try:
            if self._placer is None or not claimed.goes_elsewhere:
                back = await self._execute(claimed)
            else:
                back = await self._place(claimed, self._placer)
        except Unplaceable as unplaceable:
            await self._fail(claimed, unplaceable.error)
        except NodeTypeUnavailable as error:
            _log.warning("handing run %s back: %s", lease.run_id, error)
            back = _HandBack(_ANOTHER_WORKER_SECONDS, waited=self._still_waited(claimed))
        except LeaseLost:
            _log.warning("run %s was taken over by another worker", lease.run_id)
        except (psycopg.OperationalError, psycopg.InterfaceError, Unavailable) as error:
            _log.warning("a server is away, handing run %s back: %s", lease.run_id, error)
            back = _HandBack(_ANOTHER_WORKER_SECONDS, waited=self._still_waited(claimed))
        except OutputLost as error:
            _log.exception("run %s cannot go on", lease.run_id)
            told = {"code": error.code, "message": error.message, "hint": error.hint, **error.ids}
            await self._fail(claimed, told)
        except Exception:
            _log.exception("run %s cannot be executed", lease.run_id)
            await self._fail(claimed, _INTERNAL)
        finally:
            self._writer.release(lease)
            if self._leases.get(lease.run_id) is lease:  # else this worker has claimed it again
                del self._leases[lease.run_id]
                self._runtime.active.pop(lease.run_id, None)
        if back is not None:  # only now, for this very worker may be the next to claim it
            await self._hand_back(claimed, back)

    async def _place(self, claimed: Claim, placer: Placer) -> "_HandBack | None":
        if self._hands_back:
            return _HandBack(waited=claimed.waited)
        later = await placer.place(claimed)
        return None if later is None else _HandBack(later.seconds, waited=claimed.waited)

    def _still_waited(self, claimed: Claim) -> bool:
        """The run had left its last worker because it only waited, and was not even begun here."""
        active = self._runtime.active.get(claimed.lease.run_id)
        return claimed.waited and (active is None or active.progress is None)

    async def _execute(self, claimed: Claim) -> "_HandBack | None":
        lease, run = claimed.lease, claimed.dagster_run()
        wake = asyncio.Event()
        partial, steps = run.resolved_op_selection is not None, run.step_keys_to_execute
        active = ActiveRun(
            tenant=lease.tenant,
            run_id=lease.run_id,
            params=claimed.params,
            trigger=claimed.trigger,
            parent_run_id=claimed.parent_run_id,
            created_at=claimed.created_at,
            started_at=claimed.started_at,
            span=self._span(claimed),
            inbox=Inbox() if partial else Inbox(wake.set),
            dagster_run=run,
            selected=None if steps is None else tuple(NodeId(step) for step in steps),
            freed=self._freed,
        )
        self._runtime.active[lease.run_id] = active
        early = self._early.pop(lease.run_id, None)
        if early is not None and early.wish == "cancel":
            active.inbox.put("cancel")
        pausing = early is not None and (early.wish, early.epoch) == ("pause", lease.epoch)
        if claimed.cancelling:
            self._report(claimed, DagsterEventType.PIPELINE_CANCELED)
        elif claimed.given_up:
            await self._give_up(claimed)
        elif claimed.pausing or pausing or self._hands_back:
            active.interrupt = "pause" if claimed.pausing or pausing else "hand_back"
        elif claimed.lost and (await self._compiled(claimed)).graph.document.on_lost == "fail":
            await self._fail(claimed, run_lost())
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
        if active.interrupt == "pause":
            paused = run_paused(lease.run_id, claimed.job_name)
            self._writer.append(Record.of(paused), lease=lease)
        await self._runtime.committed(self._writer, lease.run_id)
        match active.interrupt:
            case "hand_back":
                return _HandBack(waited=self._still_waited(claimed))
            case "pause":
                # Without progress it was not even begun here: it is as its last worker left it.
                left = active.progress is not None or claimed.waited
                return _HandBack(status="paused" if left else "queued", told=True)
            case "wait" if active.resume_at is not None:
                return _HandBack(active.resume_at - time.time(), status="waiting")
            case _:
                cancelled = claimed.cancelling or active.interrupt == "cancel"
                end = "cancelled" if cancelled else "failed" if lease.error else "succeeded"
                end_span(self._runtime.tracing, active, end, lease.error)
                return None

    def _span(self, claimed: Claim) -> Span | None:
        tracing = self._runtime.tracing
        if tracing is None:
            return None
        began = time.time() if claimed.started_at is None else claimed.started_at.timestamp()
        return tracing.run(claimed.lease.run_id, claimed.traceparent, began)

    async def _prepared(self, claimed: Claim, active: ActiveRun) -> CompiledGraph:
        """The graph, and in ``active`` what had been done of it: mostly at hand."""
        compiled = await self._compiled(claimed)
        if active.selected is not None and active.parent_run_id is not None:
            kept = compiled.graph.nodes.keys() - set(active.selected)
            await asyncio.to_thread(self._adopt, active.parent_run_id, claimed.lease, kept)
        if claimed.resumed or active.selected is not None:
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

    def _adopt(self, parent: RunId, lease: Lease, nodes: Collection[NodeId]) -> None:
        with self._pool.connection() as connection:
            adopt_outputs(connection, lease.tenant, parent, lease.run_id, nodes)

    def _progress(self, claimed: Claim, compiled: CompiledGraph) -> Progress:
        lease, nodes = claimed.lease, list(compiled.graph.nodes)
        with self._pool.connection() as connection:
            return read_progress(
                connection,
                self._runtime.outputs,
                lease.tenant,
                lease.run_id,
                nodes,
                waited=claimed.waited,
            )

    async def _in_thread(self, claimed: Claim, run: DagsterRun) -> None:
        """Some ops of a job, as Dagster's launchpad selects them."""
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

    async def _give_up(self, claimed: Claim) -> None:
        """End a run that every worker was lost with, and say which nodes were under way."""

        def look() -> list[NodeId]:
            with self._pool.connection() as connection:
                return nodes_in_flight(connection, claimed.lease.run_id)

        in_flight = await asyncio.to_thread(look)
        nodes = f" while it executed {', '.join(in_flight)}" if in_flight else ""
        last = await self._placer.last_words(claimed) if self._placer is not None else ""
        error = {
            "code": "worker_lost",
            "message": f"{claimed.strikes} workers in a row were lost with the run{nodes}"
            + (f"; the last one: {last}" if last else ""),
            "hint": "A node may use more memory than there is, or crash its process; the workers' "
            "logs say how they ended.",
            "nodes": in_flight,
        }
        await self._fail(claimed, error)

    async def _fail(self, claimed: Claim, error: dict[str, Any]) -> None:
        """End a run that cannot be executed: it must not come back for ever."""
        lease = claimed.lease
        lease.outputs = None  # they may be what could not be stored
        lease.error = error
        try:
            self._report(claimed, DagsterEventType.PIPELINE_FAILURE)
            await self._runtime.committed(self._writer, lease.run_id)
            if (active := self._runtime.active.get(lease.run_id)) is not None:
                end_span(self._runtime.tracing, active, "failed", error)
        except Exception:
            _log.exception("run %s could not even be ended", lease.run_id)

    def _report(self, claimed: Claim, kind: DagsterEventType) -> None:
        lease = claimed.lease
        self._writer.append(run_record(lease.run_id, claimed.job_name, kind), lease=lease)

    async def _hand_back(self, claimed: Claim, back: "_HandBack") -> None:
        """Put the run back on the queue, whatever it takes: nobody else would."""
        lease = claimed.lease

        def work() -> str | None:
            with self._pool.connection() as connection:
                return hand_back(
                    connection, lease, back.status, back.delay_seconds, waited=back.waited
                )

        while True:
            try:
                status = await asyncio.to_thread(work)
                break
            except psycopg.Error as error:
                _log.warning("run %s cannot be handed back yet: %s", lease.run_id, error)
            await asyncio.sleep(_ANOTHER_WORKER_SECONDS)
        if status == "paused" and not back.told:  # it left for another reason
            self._writer.append(Record.of(run_paused(lease.run_id, claimed.job_name)))


@dataclass(frozen=True, slots=True)
class _HandBack:
    """How a run goes back on the queue, unless its owner wants it paused."""

    delay_seconds: float = 0.0
    status: Literal["queued", "waiting", "paused"] = "queued"
    waited: bool = False
    """Also where it is queued: it had only waited, and nothing was begun since."""
    told: bool = False
    """Its log says already that it is paused."""


async def _drive(events: Iterator[DagsterEvent], wake: asyncio.Event) -> None:
    for event in events:
        if event is SUSPENDED:
            if wake.is_set():  # others have their turn all the same
                await asyncio.sleep(0)
            await wake.wait()
            wake.clear()
