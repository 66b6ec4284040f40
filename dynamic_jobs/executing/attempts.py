"""Attempts of nodes: each a coroutine on the process's event loop, from its delay to its output."""

import asyncio
import math
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dynamic_jobs.compiling.prepared import PreparedNode
from dynamic_jobs.executing.active import ActiveRun, Look
from dynamic_jobs.executing.nodes import NodeOutput
from dynamic_jobs.executing.progress import Begun
from dynamic_jobs.executing.run_log import RunLog
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.storage import EventWriter
from foundation.ids import NodeId
from graph_defs.expressions import Scope, Template
from node_types.base import NodeContext

_LARGE_BYTES: Final = 64 * 2**10
_TOLD_SECONDS: Final = 1.0
"""A longer wait is an event of its own."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a node, counted from 1."""

    node: PreparedNode
    number: int
    started_at: datetime
    """When it first started, for it may have been under way in another worker before."""
    due: datetime | None = None
    """A further attempt starts then, and not before."""
    told: bool = False
    """That it waits was told before, in another worker."""
    clock: float = field(default_factory=time.perf_counter)

    @property
    def milliseconds(self) -> float:
        """How long it has taken, here."""
        return (time.perf_counter() - self.clock) * 1_000

    @classmethod
    def first(cls, node: PreparedNode) -> "Attempt":
        return cls(node, 1, datetime.now(UTC))

    @classmethod
    def resumed(cls, node: PreparedNode, begun: Begun, *, waited: bool) -> "Attempt":
        """Go on with what another worker had begun, and only ``waited`` for, or did not end."""
        return cls(node, begun.attempt, begun.started_at, begun.due, told=waited)

    def next(self, delay_seconds: float) -> "Attempt":
        """The attempt after this one, which has failed."""
        due = datetime.now(UTC) + timedelta(seconds=delay_seconds)
        return Attempt(self.node, self.number + 1, due, due)

    @property
    def remaining(self) -> PreparedNode:
        """The node with what is left of its timeout, where it has waited in another worker."""
        timeout = self.node.timeout
        if timeout is None or not self.told:
            return self.node
        used = max(timedelta(), datetime.now(UTC) - self.started_at)
        return replace(self.node, timeout=max(timedelta(), timeout - used))


class Attempts:
    """Makes the attempts of one run, and knows which of them only wait."""

    def __init__(
        self,
        runtime: NodeRuntime,
        writer: EventWriter,
        active: ActiveRun,
        log: RunLog,
        scope: Scope,
    ) -> None:
        self._runtime = runtime
        self._writer = writer
        self._active = active
        self._log = log
        self._scope = scope
        self._waiting: dict[NodeId, float] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._held = False
        self._large: set[NodeId] = set()
        self._made: dict[NodeId, NodeOutput] = {}

    @property
    def waiting(self) -> int:
        """How many of them do nothing but wait."""
        return len(self._waiting)

    @property
    def next_due(self) -> float:
        """When the first of those that wait goes on, in seconds since 1970."""
        return min(self._waiting.values())

    def hold(self) -> None:
        """From now on no attempt starts whose delay is over; it goes on waiting."""
        self._held = True

    async def ended(self) -> None:
        """Wait until none is under way any more. They have been cancelled before."""
        if self._running:
            await asyncio.wait(self._running)

    def note(self, node: NodeId, output: NodeOutput) -> None:
        """Nodes that read this output may take long, if it is large."""
        if output.size > _LARGE_BYTES:
            self._large.add(node)

    def reads_much(self, template: Template) -> bool:
        """Whether the template reads a large output: then it is none for the event loop."""
        return bool(self._large) and not self._large.isdisjoint(template.references)

    def run_now(self, attempt: Attempt) -> NodeOutput | None:
        """The output, where node and output are so quick that they need no task; else None.

        Raises :class:`GraphwrightError` where the node fails.
        """
        if attempt.due is not None or self.reads_much(attempt.node.given):
            return None
        output = self._runtime.runner.run_now(attempt.node, self._scope)
        if output is None or not self._runtime.outputs.is_large(output.size):
            return output
        self._made[attempt.node.id] = output  # to be kept first
        return None

    def task(self, attempt: Attempt) -> Coroutine[Any, Any, NodeOutput]:
        """The attempt, to be run on the event loop. Raises what the node raises."""
        return self._listed(attempt)

    async def _listed(self, attempt: Attempt) -> NodeOutput:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        node = attempt.node.id
        output = self._made.pop(node, None) or await self._run(attempt)
        if self._runtime.outputs.is_large(output.size):
            output = await self._runtime.keep(
                self._active.tenant, self._active.run_id, node, output
            )
        return output

    async def _run(self, attempt: Attempt) -> NodeOutput:
        node = attempt.node
        if attempt.due is not None:
            await self._wait(node.id, attempt.due.timestamp(), start=True)
            self._log.started(node.id, attempt.number)
        if node.type.effects == "external":
            await self._runtime.committed(self._writer, self._active.run_id)
        much, node = self.reads_much(node.given), attempt.remaining
        left = math.inf if node.timeout is None else node.timeout.total_seconds()
        context = self._context(attempt, time.time() + left)
        return await self._runtime.runner.run(node, self._scope, context, much=much)

    def _context(self, attempt: Attempt, ends_by: float) -> NodeContext:
        node, number = attempt.node.id, attempt.number

        async def wait(until: datetime) -> None:
            if until.timestamp() - time.time() > _TOLD_SECONDS and not attempt.told:
                self._log.waiting(node, number, until)
            await self._wait(node, until.timestamp(), ends_by=ends_by)

        return NodeContext(
            tenant=self._active.tenant,
            run_id=self._active.run_id,
            node=node,
            attempt=number,
            key=f"{self._active.run_id}.{node}",
            started_at=attempt.started_at,
            policy=self._runtime.policy,
            log=lambda level, text: self._log.message(node, level, text),
            materialize=lambda key, metadata: self._log.materialized(node, number, key, metadata),
            wait=wait,
        )

    async def _wait(
        self, node: NodeId, until: float, *, start: bool = False, ends_by: float = math.inf
    ) -> None:
        """``start``: to start an attempt then. ``ends_by``: it ends then, waiting or not."""
        self._waiting[node] = min(until, ends_by)
        self._active.inbox.put(Look())
        try:
            await asyncio.sleep(max(0.0, until - time.time()))
            if start and self._held:
                await asyncio.get_running_loop().create_future()  # until it is cancelled
        finally:
            del self._waiting[node]
            self._active.only_waits = False
