"""The step executor: a Dagster ``Executor`` that runs ready nodes concurrently in this process.

It walks the graph and writes its events; nodes run where their type says. In a warm worker it runs
on the event loop itself: while nothing is to be done it yields ``SUSPENDED``, and is continued when
something happens, so a run under way holds no thread. Elsewhere it blocks its thread meanwhile.

A node with external effects starts only when everything upstream, and its own start, are committed.
"""

import asyncio
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from random import random
from typing import Any, Final, NoReturn

from dagster import (
    DagsterEvent,
    DagsterEventType,
    DagsterRun,
    EventLogEntry,
    Executor,
    deserialize_value,
)
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode

from dynamic_jobs.compiling.prepared import PreparedGraph
from dynamic_jobs.executing.active import (
    ActiveRun,
    Finished,
    Interrupt,
    Look,
    Message,
    read_active,
)
from dynamic_jobs.executing.attempts import Attempt, Attempts
from dynamic_jobs.executing.backoff import delay_seconds, is_retried
from dynamic_jobs.executing.deadline import Deadline
from dynamic_jobs.executing.nodes import NodeOutput
from dynamic_jobs.executing.outputs import adopt_outputs
from dynamic_jobs.executing.policy_walk import PolicyWalk
from dynamic_jobs.executing.progress import Progress, read_progress
from dynamic_jobs.executing.run_log import RunLog
from dynamic_jobs.executing.runtime import NodeRuntime, NodeTask
from dynamic_jobs.executing.scope import run_scope
from dynamic_jobs.executing.walk import GraphWalk
from dynamic_jobs.executing.watching import Watch
from dynamic_jobs.naming import TENANT_TAG
from dynamic_jobs.reading.events import step_error
from dynamic_jobs.storage import EventWriter, event_storage_of
from foundation.database import connect
from foundation.errors import GraphwrightError
from foundation.ids import NodeId, RunId, TenantId
from graph_defs.expressions import Ended

SUSPENDED: Final = DagsterEvent(
    event_type_value=DagsterEventType.ENGINE_EVENT.value,
    job_name="",
    event_specific_data=EngineEventData(),
    message="suspended",
)
"""Yielded instead of blocking: continue when the run's inbox has a message. Never stored."""

_SLICE: Final = 64
"""Nodes that one run ends before other runs on the same event loop have their turn."""


class StepExecutor(Executor):
    """Executes the runs of one graph version in this process."""

    def __init__(self, graph: PreparedGraph, runtime: NodeRuntime) -> None:
        self._graph = graph
        self._runtime = runtime

    @property
    def retries(self) -> RetryMode:
        return RetryMode.ENABLED

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[DagsterEvent]:
        run = plan_context.dagster_run
        writer = event_storage_of(plan_context.instance).writer
        try:
            active = self._opened(run, execution_plan)
        except GraphwrightError as error:
            if (lease := writer.lease(RunId(run.run_id))) is not None:
                lease.error = _described(error)
            raise
        execution = _Execution(self._graph, self._runtime, writer, run, active, execution_plan)
        yield from execution.run()

    def _opened(self, run: DagsterRun, plan: ExecutionPlan) -> ActiveRun:
        """The run, and what had been done in it before; a worker knows both already."""
        run_id, tenant = RunId(run.run_id), TenantId(run.tags[TENANT_TAG])
        active = self._runtime.active.get(run_id)
        if active is not None and active.progress is not None:
            return active
        with connect(self._runtime.settings.database_url) as connection:
            if active is None:
                active = read_active(connection, tenant, run_id)
            given = self._graph.nodes.keys() - set(plan.step_keys_to_execute)
            if given and active.parent_run_id is not None:
                adopt_outputs(
                    connection, tenant, active.parent_run_id, run_id, [NodeId(n) for n in given]
                )
            nodes = list(self._graph.nodes)
            store = self._runtime.outputs
            active.progress = read_progress(connection, store, tenant, run_id, nodes)
        return active


class _Execution:
    """One walk over one graph."""

    def __init__(
        self,
        graph: PreparedGraph,
        runtime: NodeRuntime,
        writer: EventWriter,
        run: DagsterRun,
        active: ActiveRun,
        plan: ExecutionPlan,
    ) -> None:
        self._graph = graph
        self._runtime = runtime
        self._lease = writer.lease(active.run_id)
        self._active = active
        self._progress = active.progress or Progress()
        self._outputs = self._progress.outputs
        selected = active.selected
        if selected is None:
            selected = tuple(NodeId(key) for key in plan.step_keys_to_execute)
        walk = PolicyWalk if graph.has_policies else GraphWalk
        self._walk = walk(graph, selected, self._outputs.keys(), self._progress.failed)
        self._log = RunLog(run, writer)
        self._without_output: dict[NodeId, Ended] = {}
        self._scope = run_scope(graph, active, self._outputs, self._without_output)
        self._attempts = Attempts(runtime, writer, active, self._log, self._scope)
        self._watch = Watch(runtime.tracing, active)
        self._deadline = Deadline(graph, active, runtime)
        self._selected = selected
        self._pausing = False
        self._tasks: dict[NodeId, tuple[Attempt, NodeTask[NodeOutput]]] = {}
        self._error: dict[str, Any] | None = None
        self._ended = 0

    def run(self) -> Iterator[DagsterEvent]:
        """Yields failures, and ``SUSPENDED``; all other events go straight to the writer.

        Raises ``DagsterExecutionInterruptedError`` when the run is cancelled, is handed back, is
        paused, or leaves its worker to wait; and ``RunTimeout``.
        """
        try:
            self._deadline.watch()
            yield from self._failed_before()
            yield from self._go()
            if self._error is None:
                yield from self._conclude()
        finally:
            self._deadline.close()
            self._stop()

    def _go(self) -> Iterator[DagsterEvent]:
        while True:
            if self._deadline.has_passed:
                yield from self._time_out()
                return
            if not self._pausing:
                yield from self._start_ready()
            if not self._tasks and not self._walk.has_ready:
                return
            if self._pausing and self._attempts.waiting == len(self._tasks):
                self._interrupt("pause")
            message = yield from self._message()
            if isinstance(message, Finished):
                yield from self._finish(message.node)
            else:
                yield from self._heed(message)

    def _failed_before(self) -> Iterator[DagsterEvent]:
        """Failures in another worker are the run's as if they were of this one."""
        for node_id, event in self._progress.failed.items():
            error = step_error(event)
            self._without_output[node_id] = {"status": "failed", "error": error}
            if not self._graph.nodes[node_id].continue_on_error:
                self._fail_by({**error, "node": node_id})
                yield deserialize_value(event, EventLogEntry).get_dagster_event()
        self._skip(self._walk.skipped)

    def _start_ready(self) -> Iterator[DagsterEvent]:
        while self._walk.has_ready:
            free = self._runtime.settings.run_nodes - len(self._tasks)
            if free <= 0:
                return
            for node_id in self._walk.take(min(free, _SLICE)):
                yield from self._start(self._first_attempt(node_id))
            if self._ended >= _SLICE and not self._active.inbox.blocks:
                self._ended = 0
                self._active.inbox.put(Look())
                yield SUSPENDED
                return

    def _first_attempt(self, node_id: NodeId) -> Attempt:
        """The first one here: another worker may have begun the node."""
        node, begun = self._graph.nodes[node_id], self._progress.begun.get(node_id)
        if begun is None:
            self._log.started(node_id, 1)
            return Attempt.first(node)
        attempt = Attempt.resumed(node, begun, waited=self._progress.waited)
        if attempt.due is None and not self._progress.waited:
            self._log.started(node_id, attempt.number, again=True)
        return attempt

    def _start(self, attempt: Attempt) -> Iterator[DagsterEvent]:
        try:
            output = self._attempts.run_now(attempt)
        except GraphwrightError as error:
            yield from self._failed(attempt, error)
            return
        if output is not None:
            self._succeeded(attempt, output)
            return
        node_id, inbox = attempt.node.id, self._active.inbox
        task = self._runtime.submit(self._attempts.task(attempt))
        self._tasks[node_id] = (attempt, task)
        task.add_done_callback(lambda _: inbox.put(Finished(node_id)))

    def _message(self) -> Generator[DagsterEvent, None, Message]:
        """The next message; gives up the thread until there is one.

        If until then all that is under way waits, the run may leave its worker.
        """
        inbox = self._active.inbox
        if inbox.blocks:
            return inbox.get()
        while (message := inbox.poll()) is None:
            if self._tasks and self._attempts.waiting == len(self._tasks):
                self._wait()
            yield SUSPENDED
        return message

    def _heed(self, message: Message) -> Iterator[DagsterEvent]:
        match message:
            case "cancel":
                yield from self._cancel_tasks()
                self._interrupt("cancel")
            case "pause":
                self._pausing = True
                self._attempts.hold()
            case str():
                self._interrupt(message)
            case _:
                pass

    def _interrupt(self, why: Interrupt) -> NoReturn:
        self._active.interrupt = why
        raise DagsterExecutionInterruptedError

    def _cancel_tasks(self) -> Iterator[DagsterEvent]:
        """Cancel what is under way, and wait until it has ended: ``NodeRunner`` sees to that."""
        inbox, tasks = self._active.inbox, list(self._tasks.values())
        self._stop()
        ended = self._runtime.submit(self._attempts.ended())
        ended.add_done_callback(lambda _: inbox.put(Look()))
        cancelled = False
        while not ended.done():
            if inbox.blocks:
                message = inbox.get()
            elif (message := inbox.poll()) is None:
                yield SUSPENDED
            cancelled = cancelled or message == "cancel"
        for attempt, task in tasks:  # some may have been as good as done
            with suppress(GraphwrightError, asyncio.CancelledError, CancelledError):
                self._succeeded(attempt, task.result())
        if cancelled:
            self._interrupt("cancel")

    def _time_out(self) -> Iterator[DagsterEvent]:
        """The deadline has passed: end what is under way, and skip the rest.

        Raises ``RunTimeout``, unless the run fails by something else already.
        """
        cut_off = self._tasks.keys() | self._progress.begun.keys()
        yield from self._cancel_tasks()
        self._skip(
            node
            for node in self._selected
            if not (node in self._outputs or node in self._without_output or node in cut_off)
        )
        if self._error is None:
            error = self._deadline.error
            self._fail_by(_described(error))
            raise error

    def _wait(self) -> None:
        """All that is under way waits: leave the worker, if it is for long."""
        due = self._deadline.first(self._attempts.next_due)
        if due - time.time() > self._runtime.settings.leave_seconds:
            self._active.resume_at = due
            self._interrupt("wait")
        if not self._active.only_waits:
            self._active.only_waits = True
            self._active.freed()

    def _finish(self, node_id: NodeId) -> Iterator[DagsterEvent]:
        attempt, task = self._tasks.pop(node_id)
        try:
            output = task.result()
        except GraphwrightError as error:
            yield from self._failed(attempt, error)
        else:
            self._succeeded(attempt, output)

    def _succeeded(self, attempt: Attempt, output: NodeOutput) -> None:
        node_id = attempt.node.id
        self._ended += 1
        self._outputs[node_id] = output.value
        self._attempts.note(node_id, output)
        self._log.succeeded(node_id, attempt.number, output, attempt.milliseconds)
        self._watch.succeeded(attempt)
        self._skip(self._walk.succeed(node_id))

    def _failed(self, attempt: Attempt, error: GraphwrightError) -> Iterator[DagsterEvent]:
        node = attempt.node
        self._ended += 1
        if node.retry is not None and is_retried(node.retry, attempt.number, error):
            chance = random()  # noqa: S311 - it keeps no secret
            seconds = delay_seconds(node.retry, attempt.number, chance)
            self._log.retrying(node.id, attempt.number, error, seconds)
            self._watch.failed(attempt, error, again=True)
            yield from self._start(attempt.next(seconds))
            return
        described, handled = _described(error), node.continue_on_error
        self._without_output[node.id] = {"status": "failed", "error": described}
        if not handled:
            self._fail_by({**described, "node": node.id})
        event = self._log.failed(node.id, attempt.number, error, handled=handled)
        self._watch.failed(attempt, error, again=False)
        if not handled:
            yield event
        self._skip(self._walk.fail(node.id))

    def _skip(self, nodes: Iterable[NodeId]) -> None:
        for node in nodes:
            self._without_output[node] = {"status": "skipped", "error": None}
            if node not in self._progress.skipped:
                self._log.skipped(node)
                self._watch.skipped(self._graph.nodes[node])

    def _fail_by(self, error: dict[str, Any]) -> None:
        """What the run fails by in the end, unless something was first."""
        self._error = self._error or error
        self._result()

    def _conclude(self) -> Iterator[DagsterEvent]:
        """Evaluate the graph's outputs; they commit with the run's success."""
        runner, outputs = self._runtime.runner, self._graph.outputs
        try:
            output = None
            if not self._attempts.reads_much(outputs):
                output = runner.output_now(outputs, self._scope)
            if output is None:
                inbox = self._active.inbox
                task = self._runtime.submit(runner.evaluate_output(outputs, self._scope))
                task.add_done_callback(lambda _: inbox.put(Look()))
                while not task.done():
                    yield from self._heed((yield from self._message()))
                output = task.result()
        except GraphwrightError as error:
            self._fail_by(_described(error))
            raise
        self._result(output.text)

    def _result(self, outputs: str | None = None) -> None:
        if self._lease is not None:
            self._lease.outputs, self._lease.error = outputs, self._error

    def _stop(self) -> None:
        """Cancel what still runs. A thread or process cannot be stopped; its result is dropped."""
        for _, task in self._tasks.values():
            task.cancel()
        self._tasks.clear()


def _described(error: GraphwrightError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint}
