"""The time by which a run has to have ended."""

import asyncio
import time
from typing import ClassVar

from dynamic_jobs.compiling.prepared import PreparedGraph
from dynamic_jobs.executing.active import ActiveRun, Look
from dynamic_jobs.executing.runtime import NodeRuntime, NodeTask
from foundation.errors import GraphwrightError


class RunTimeout(GraphwrightError):
    """The run took longer than its graph allows."""

    code: ClassVar[str] = "run_timeout"
    status: ClassVar[int] = 422


class Deadline:
    """``timeout_seconds`` of a graph, for one run: counted from when it first started, anywhere."""

    def __init__(self, graph: PreparedGraph, active: ActiveRun, runtime: NodeRuntime) -> None:
        self._active = active
        self._runtime = runtime
        self._timeout = graph.timeout
        started = active.started_at.timestamp() if active.started_at else time.time()
        self._at = started + self._timeout.total_seconds() if self._timeout else None
        self._alarm: NodeTask[None] | None = None

    @property
    def has_passed(self) -> bool:
        return self._at is not None and time.time() >= self._at

    @property
    def error(self) -> RunTimeout:
        """What the run then fails by."""
        seconds = self._timeout.total_seconds() if self._timeout else 0.0
        return RunTimeout(
            f"the run took longer than its {seconds:,g} seconds",
            hint="raise `timeout_seconds` of the graph, or find the node that takes long",
            run_id=self._active.run_id,
        )

    def first(self, due: float) -> float:
        """``due``, or the deadline where that is before; in seconds since 1970."""
        return due if self._at is None else min(due, self._at)

    def watch(self) -> None:
        """Have the executor look when the deadline passes."""
        if self._at is not None:
            self._alarm = self._runtime.submit(self._ring(self._at))

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    async def _ring(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.time()))
        self._active.inbox.put(Look())
