"""Executing one claimed run through Dagster, in a thread of the worker."""

import logging
from collections.abc import Iterator

import psycopg
from dagster import DagsterEvent, DagsterEventType, DagsterRun
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import (
    ExecuteRunWithPlanIterable,
    execute_run_iterator,
    job_execution_iterator,
)
from dagster._core.execution.context_creation_job import (
    PlanOrchestrationContextManager,
    orchestration_context_event_generator,
)

from dynamic_jobs.active import Interrupt, read_active
from dynamic_jobs.compiler import CompiledGraph, Compiler
from dynamic_jobs.control import run_record
from dynamic_jobs.prepared import NodeTypeUnavailable
from dynamic_jobs.queue import Claim, hand_back
from dynamic_jobs.runtime import NodeRuntime
from dynamic_jobs.storage import LeaseLost, event_storage_of
from dynamic_jobs.worker_instance import WorkerInstance
from foundation.database import Pool
from foundation.errors import Unavailable
from foundation.ids import RunId
from graph_defs.store import load_version

_log = logging.getLogger(__name__)

_ANOTHER_WORKER_SECONDS = 2.0
"""How long a run that this worker cannot execute waits on the queue for another."""


class RunExecution:
    """Executes claimed runs; safe to call from as many threads as the worker has runs."""

    def __init__(
        self, runtime: NodeRuntime, compiler: Compiler, instance: WorkerInstance, pool: Pool
    ) -> None:
        self._runtime = runtime
        self._compiler = compiler
        self._instance = instance
        self._writer = event_storage_of(instance).writer
        self._pool = pool

    def interrupt(self, run_id: RunId, why: Interrupt) -> None:
        """Stop a run of this process, if it is one: its executor winds it down."""
        active = self._runtime.active.get(run_id)
        if active is not None:
            active.inbox.put(why)

    def execute(self, claimed: Claim) -> None:
        """Execute a run to its end, or hand it back. Never raises: a run's fault is its own."""
        lease = claimed.lease
        self._writer.hold(lease)
        try:
            self._execute(claimed)
        except NodeTypeUnavailable as error:
            _log.warning("handing run %s back: %s", lease.run_id, error)
            self._hand_back(claimed, _ANOTHER_WORKER_SECONDS)
        except LeaseLost:
            _log.warning("run %s was taken over by another worker", lease.run_id)
        except (psycopg.Error, Unavailable) as error:
            _log.warning("the database is away, handing run %s back: %s", lease.run_id, error)
            self._hand_back(claimed, _ANOTHER_WORKER_SECONDS)
        except Exception:
            _log.exception("run %s cannot be executed", lease.run_id)
            self._fail(claimed)
        finally:
            self._runtime.active.pop(lease.run_id, None)
            self._writer.release(lease.run_id)

    def _execute(self, claimed: Claim) -> None:
        lease = claimed.lease
        with self._pool.connection() as connection:
            compiled = self._compiler.cached(claimed.graph_version_id) or self._compiler.compile(
                load_version(connection, lease.tenant, claimed.graph_version_id)
            )
            # Registered before the status is read, so that a cancel is either seen here or arrives
            # in the inbox.
            self._runtime.active[lease.run_id] = read_active(connection, lease.tenant, lease.run_id)
        run = self._instance.get_run_by_id(lease.run_id)
        if run is None:
            raise LeaseLost("the run was deleted", run_id=lease.run_id)
        active = self._runtime.active[lease.run_id]
        if active.status == "cancelling":
            self._report(run, DagsterEventType.PIPELINE_CANCELED)
        else:
            self._run_to_end(run, compiled, claimed.resumed)
        self._writer.flush(lease.run_id)
        if active.interrupt == "hand_back":
            self._hand_back(claimed, 0.0)

    def _run_to_end(self, run: DagsterRun, compiled: CompiledGraph, resumed: bool) -> None:
        if resumed:
            self._report(run, DagsterEventType.RUN_RESUMED)
        else:
            self._report(run, DagsterEventType.PIPELINE_DEQUEUED)
            self._report(run, DagsterEventType.PIPELINE_STARTING)
        for _ in self._events(run, compiled, resumed):
            pass  # the storage has them

    def _events(
        self, run: DagsterRun, compiled: CompiledGraph, resumed: bool
    ) -> Iterator[DagsterEvent]:
        job = InMemoryJob(compiled.job)
        if run.step_keys_to_execute is not None or run.resolved_op_selection is not None:
            # A part of the graph, as the Dagster UI re-executes it: Dagster works its plan out.
            self._writer.flush(RunId(run.run_id))
            run = self._instance.get_run_by_id(run.run_id) or run
            return execute_run_iterator(job, run, self._instance, resume_from_failure=resumed)
        manager = PlanOrchestrationContextManager(
            context_event_generator=orchestration_context_event_generator,
            job=job,
            execution_plan=compiled.plan,
            run_config=run.run_config,
            dagster_run=run,
            instance=self._instance,
            resume_from_failure=resumed,
        )
        return iter(ExecuteRunWithPlanIterable(compiled.plan, job_execution_iterator, manager))

    def _fail(self, claimed: Claim) -> None:
        """End a run that cannot be executed by a fault of ours: it must not come back for ever."""
        lease = claimed.lease
        lease.error = {
            "code": "internal",
            "message": "the run could not be executed",
            "hint": "the worker's log says why",
        }
        run = self._instance.get_run_by_id(lease.run_id)
        if run is not None:
            self._report(run, DagsterEventType.PIPELINE_FAILURE)
            self._writer.flush(lease.run_id)

    def _report(self, run: DagsterRun, kind: DagsterEventType) -> None:
        self._writer.append(run_record(RunId(run.run_id), run.job_name, kind))

    def _hand_back(self, claimed: Claim, delay_seconds: float) -> None:
        with self._pool.connection() as connection:
            hand_back(connection, claimed.lease, delay_seconds)
