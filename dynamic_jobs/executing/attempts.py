"""Attempts of nodes: each a coroutine on the process's event loop, from its delay to its output."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
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

    def next(self) -> "Attempt":
        """The attempt after this one, which has failed."""
        due = datetime.now(UTC) + self.node.retry_delay
        return Attempt(self.node, self.number + 1, due, due)


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
        self._large: set[NodeId] = set()

    @property
    def waiting(self) -> int:
        """How many of them do nothing but wait."""
        return len(self._waiting)

    @property
    def next_due(self) -> float:
        """When the first of those that wait goes on, in seconds since 1970."""
        return min(self._waiting.values())

    def note(self, node: NodeId, output: NodeOutput) -> None:
        """Nodes that read this output may take long, if it is large."""
        if output.size > _LARGE_BYTES:
            self._large.add(node)

    def reads_much(self, template: Template) -> bool:
        """Whether the template reads a large output: then it is none for the event loop."""
        return bool(self._large) and not self._large.isdisjoint(template.references)

    def run_now(self, attempt: Attempt) -> NodeOutput | None:
        """The output, where the node is so quick that it needs no task; else None.

        Raises :class:`GraphwrightError` where the node fails.
        """
        if attempt.due is not None or self.reads_much(attempt.node.given):
            return None
        return self._runtime.runner.run_now(attempt.node, self._scope)

    def task(self, attempt: Attempt) -> Coroutine[Any, Any, NodeOutput]:
        """The attempt, to be run on the event loop. Raises what the node raises."""
        return self._run(attempt)

    async def _run(self, attempt: Attempt) -> NodeOutput:
        node = attempt.node
        if attempt.due is not None:
            await self._wait(node.id, attempt.due.timestamp())
            self._log.started(node.id, attempt.number)
        if node.type.effects == "external":
            await self._runtime.committed(self._writer, self._active.run_id)
        much = self.reads_much(node.given)
        return await self._runtime.runner.run(node, self._scope, self._context(attempt), much=much)

    def _context(self, attempt: Attempt) -> NodeContext:
        node, number = attempt.node.id, attempt.number

        async def wait(until: datetime) -> None:
            if until.timestamp() - time.time() > _TOLD_SECONDS and not attempt.told:
                self._log.waiting(node, number, until)
            await self._wait(node, until.timestamp())

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

    async def _wait(self, node: NodeId, until: float) -> None:
        self._waiting[node] = until
        self._active.inbox.put(Look())
        try:
            await asyncio.sleep(max(0.0, until - time.time()))
        finally:
            del self._waiting[node]
            self._active.only_waits = False
