"""The context of Dagster's run loop on a warm worker: Dagster's own, made in microseconds.

Dagster's generator of it resolves the run's config over all nodes, builds console loggers and looks
at every step, for each run anew. Nothing of that has an effect here: params were checked when the
run was made, nodes read them from the run, and a worker has no console.
tests/dynamic_jobs/test_parity.py fails when a release of Dagster asks for more.
"""

import logging
import time
from collections.abc import Iterator
from typing import Any, cast

from dagster import DagsterEvent, DagsterEventType, DagsterLogManager, EventLogEntry
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import ExecuteRunWithPlanIterable, job_execution_iterator
from dagster._core.execution.context.system import PlanData, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanOrchestrationContextManager

from dynamic_jobs.compiling.compiler import CompiledGraph
from dynamic_jobs.executing.active import ActiveRun
from dynamic_jobs.executing.executor import StepExecutor
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.storage import EventWriter
from dynamic_jobs.storage.records import Record
from dynamic_jobs.workers.instance import WorkerInstance
from foundation.errors import GraphwrightError


def run_events(
    compiled: CompiledGraph,
    runtime: NodeRuntime,
    instance: WorkerInstance,
    writer: EventWriter,
    active: ActiveRun,
    *,
    resumed: bool,
) -> Iterator[DagsterEvent]:
    """Dagster's run loop over a whole graph, with our executor; iterate it to execute the run."""
    run = active.dagster_run
    if run is None:
        raise GraphwrightError("the run has no record in Dagster", run_id=active.run_id)
    job = InMemoryJob(compiled.job)
    executor = StepExecutor(compiled.graph, runtime)
    context = PlanOrchestrationContext(
        plan_data=PlanData(
            job=job,
            dagster_run=run,
            instance=instance,
            execution_plan=compiled.plan,
            raise_on_error=False,
            retry_mode=executor.retries,
            step_dependency_config=executor.step_dependency_config,
        ),
        log_manager=cast("DagsterLogManager", _RunLog(active, run.job_name, writer)),
        executor=executor,
        output_capture=None,
        resume_from_failure=resumed,
    )

    def made(*_: Any, **__: Any) -> Iterator[PlanOrchestrationContext]:
        yield context

    manager = PlanOrchestrationContextManager(
        context_event_generator=made,
        job=job,
        execution_plan=compiled.plan,
        run_config=run.run_config,
        dagster_run=run,
        instance=instance,
        resume_from_failure=resumed,
    )
    return iter(ExecuteRunWithPlanIterable(compiled.plan, job_execution_iterator, manager))


class _RunLog:
    """The part of ``DagsterLogManager`` that the run loop uses: its events go to the writer."""

    def __init__(self, active: ActiveRun, job_name: str, writer: EventWriter) -> None:
        self._active = active
        self._job_name = job_name
        self._writer = writer
        self._lease = writer.lease(active.run_id)

    def log_dagster_event(
        self, level: int, msg: str, dagster_event: DagsterEvent, batch_metadata: object = None
    ) -> None:
        if (
            self._active.interrupt in ("wait", "pause")
            and dagster_event.event_type is DagsterEventType.ENGINE_EVENT
        ):
            return  # "interrupted unexpectedly": it was not
        self._writer.append(
            Record.of(
                EventLogEntry(
                    error_info=None,
                    level=logging.getLevelName(level) if isinstance(level, str) else level,
                    user_message=msg,
                    run_id=self._active.run_id,
                    timestamp=time.time(),
                    step_key=dagster_event.step_key,
                    job_name=self._job_name,
                    dagster_event=dagster_event,
                )
            ),
            lease=self._lease,
        )
