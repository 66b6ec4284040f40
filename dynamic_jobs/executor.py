"""The step executor: a Dagster ``Executor`` that runs ready nodes concurrently in this process.

One thread walks the graph and writes its events; nodes run on the process's event loop and threads.
A node with external effects starts only when everything upstream, and its own start, are committed.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from dagster import DagsterEvent, DagsterRun, Executor
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode

from dynamic_jobs.active import ActiveRun, Finished, read_active
from dynamic_jobs.naming import TENANT_TAG
from dynamic_jobs.nodes import NodeOutput
from dynamic_jobs.outputs import adopt_outputs, read_outputs
from dynamic_jobs.prepared import PreparedGraph
from dynamic_jobs.runtime import NodeRuntime
from dynamic_jobs.scope import run_scope
from dynamic_jobs.step_events import RunLog
from dynamic_jobs.storage import EventWriter, event_storage_of
from dynamic_jobs.walk import GraphWalk
from foundation.database import connect
from foundation.errors import GraphwrightError
from foundation.ids import NodeId, RunId, TenantId
from node_types.base import NodeContext


class StepExecutor(Executor):
    """Executes the runs of one graph version in this process."""

    def __init__(self, graph: PreparedGraph, runtime: NodeRuntime) -> None:
        self._graph = graph
        self._runtime = runtime

    @property
    def retries(self) -> RetryMode:
        return RetryMode.DISABLED

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        run = plan_context.dagster_run
        writer = event_storage_of(plan_context.instance).writer
        active, outputs = self._open(run, execution_plan, plan_context.resume_from_failure)
        selected = [NodeId(key) for key in execution_plan.step_keys_to_execute]
        walk = GraphWalk(self._graph, selected, outputs.keys() & set(selected))
        execution = _Execution(self._graph, self._runtime, writer, run, active, walk, outputs)
        yield from execution.run()

    def _open(
        self, run: DagsterRun, plan: ExecutionPlan, resumed: bool
    ) -> tuple[ActiveRun, dict[NodeId, Any]]:
        """The run's inputs, and the outputs that it starts with when it does not start afresh."""
        run_id, tenant = RunId(run.run_id), TenantId(run.tags[TENANT_TAG])
        active = self._runtime.active.get(run_id)
        partial = len(plan.step_keys_to_execute) < len(self._graph.nodes)
        if active is not None and not resumed and not partial:
            return active, {}
        with connect(self._runtime.settings.database_url) as connection:
            if active is None:
                active = read_active(connection, tenant, run_id)
            if partial and active.parent_run_id is not None:
                given = self._graph.nodes.keys() - set(plan.step_keys_to_execute)
                adopt_outputs(connection, tenant, active.parent_run_id, run_id, given)
            return active, read_outputs(connection, tenant, run_id, self._graph.nodes.keys())


@dataclass(slots=True)
class _Task:
    future: Future[NodeOutput]
    started: float


class _Execution:
    """One walk over one graph."""

    def __init__(
        self,
        graph: PreparedGraph,
        runtime: NodeRuntime,
        writer: EventWriter,
        run: DagsterRun,
        active: ActiveRun,
        walk: GraphWalk,
        outputs: dict[NodeId, Any],
    ) -> None:
        self._graph = graph
        self._runtime = runtime
        self._writer = writer
        self._active = active
        self._walk = walk
        self._outputs = outputs
        self._log = RunLog(run, writer)
        self._tasks: dict[NodeId, _Task] = {}
        self._error: dict[str, Any] | None = None
        self._scope = run_scope(graph, active, outputs)

    def run(self) -> Iterator[DagsterEvent]:
        """Yields the failures only: the rest goes straight to the writer.

        Raises ``DagsterExecutionInterruptedError`` when the run is cancelled or handed back.
        """
        try:
            while True:
                for node in self._walk.take(self._runtime.settings.run_nodes - len(self._tasks)):
                    self._start(node)
                if not self._tasks:
                    break
                message = self._active.inbox.get()
                if not isinstance(message, Finished):
                    self._active.interrupt = message
                    raise DagsterExecutionInterruptedError
                yield from self._finish(message.node)
        finally:
            self._stop()
        self._conclude()

    def _start(self, node_id: NodeId) -> None:
        node = self._graph.nodes[node_id]
        self._log.started(node_id)
        if node.type.effects == "external":
            self._writer.flush(self._active.run_id)
        context = NodeContext(
            tenant=self._active.tenant,
            run_id=self._active.run_id,
            node=node_id,
            attempt=1,
            key=f"{self._active.run_id}.{node_id}",
            policy=self._runtime.policy,
            log=lambda level, text: self._log.message(node_id, level, text),
        )
        started = time.perf_counter()
        future = self._runtime.submit(self._runtime.runner.run(node, self._scope, context))
        self._tasks[node_id] = _Task(future, started)
        future.add_done_callback(lambda _: self._active.inbox.put(Finished(node_id)))

    def _finish(self, node_id: NodeId) -> Iterator[DagsterEvent]:
        task = self._tasks.pop(node_id)
        try:
            output = task.future.result()
        except GraphwrightError as error:
            self._error = self._error or _described(error, node_id)
            self._result()
            yield self._log.failed(node_id, error)
            for skipped in self._walk.fail(node_id):
                self._log.skipped(skipped)
            return
        duration_ms = (time.perf_counter() - task.started) * 1_000
        self._outputs[node_id] = output.value
        self._log.succeeded(node_id, output, duration_ms)
        self._walk.succeed(node_id)

    def _conclude(self) -> None:
        """Evaluate the graph's outputs; they commit with the run's success."""
        if self._error is not None:
            return
        try:
            work = self._runtime.runner.evaluate_output(self._graph.outputs, self._scope)
            output = self._runtime.submit(work).result()
        except GraphwrightError as error:
            self._error = _described(error, None)
            self._result()
            raise
        self._result(output.text)

    def _result(self, outputs: str | None = None) -> None:
        lease = self._writer.lease(self._active.run_id)
        if lease is not None:
            lease.outputs, lease.error = outputs, self._error

    def _stop(self) -> None:
        """Cancel what still runs. A thread cannot be stopped; its result is dropped."""
        for task in self._tasks.values():
            task.future.cancel()
        self._tasks.clear()


def _described(error: GraphwrightError, node: NodeId | None) -> dict[str, Any]:
    described: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    return described if node is None else {**described, "node": node}
