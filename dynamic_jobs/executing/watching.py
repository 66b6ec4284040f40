"""What executing a run tells operators: counts and times of its nodes' attempts, its trace."""

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dynamic_jobs.compiling.prepared import PreparedNode
from dynamic_jobs.executing.active import ActiveRun
from dynamic_jobs.executing.attempts import Attempt
from foundation.errors import GraphwrightError
from foundation.telemetry.metrics import NODE_SECONDS, NODES

if TYPE_CHECKING:
    from foundation.telemetry.otlp import Tracing

_Instruments: TypeAlias = tuple[Callable[[], None], Callable[[float], None]]
RunEnd: TypeAlias = Literal["succeeded", "failed", "cancelled"]


class Watch:
    """Of one run, on one worker."""

    def __init__(self, tracing: "Tracing | None", active: ActiveRun) -> None:
        self._tracing = tracing
        self._active = active

    def succeeded(self, attempt: Attempt) -> None:
        self._ended(attempt, "succeeded", None)

    def failed(self, attempt: Attempt, error: GraphwrightError, *, again: bool) -> None:
        """``again``: another attempt follows."""
        self._ended(attempt, "retrying" if again else "failed", error)

    def skipped(self, node: PreparedNode) -> None:
        NODES.labels(node.type.name, "skipped").inc()

    def _ended(self, attempt: Attempt, status: str, error: GraphwrightError | None) -> None:
        node_type = attempt.node.type.name
        count, observe = _instruments(node_type, status)
        count()
        observe(max(0.0, time.time() - attempt.started_at.timestamp()))
        if self._tracing is not None and self._active.span is not None:
            attributes = {
                "graphwright.node": attempt.node.id,
                "graphwright.attempt": attempt.number,
                "graphwright.run_id": self._active.run_id,
            }
            self._tracing.node(
                self._active.span,
                node_type,
                attempt.started_at,
                attributes,
                None if error is None else error.code,
            )


@cache
def _instruments(node_type: str, status: str) -> _Instruments:
    """For nodes that take microseconds, looking these up would take as long as counting."""
    return NODES.labels(node_type, status).inc, NODE_SECONDS.labels(node_type).observe


def end_span(
    tracing: "Tracing | None", active: ActiveRun, end: RunEnd, error: dict[str, Any] | None
) -> None:
    """Tell of a run that has ended, all of it, whatever workers it was on; once only."""
    span, active.span = active.span, None
    if tracing is None or span is None:
        return
    attributes = {
        "graphwright.run_id": active.run_id,
        "graphwright.tenant": active.tenant,
        "graphwright.status": end,
    }
    code = None if end == "succeeded" else str((error or {}).get("code", end))
    tracing.ended(span, attributes, code)
