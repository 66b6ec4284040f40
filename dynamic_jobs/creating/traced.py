"""The span of a trigger, with which a run's trace begins or goes on."""

from dataclasses import replace
from typing import TYPE_CHECKING

from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.creating.new_run import NewRun
from foundation.ids import RunId
from foundation.telemetry.tracing import Span

if TYPE_CHECKING:
    from foundation.telemetry.otlp import Tracing


def begin(tracing: "Tracing | None", new: NewRun) -> tuple[NewRun, Span | None]:
    """The run, as a child of the trigger's span; that is for :func:`end`, once the run is there."""
    if tracing is None:
        return new, None
    span = tracing.trigger(new.run_id, new.traceparent)
    return replace(new, traceparent=str(span.here)), span


def end(
    tracing: "Tracing | None", span: Span | None, run_id: RunId, launchable: Launchable
) -> None:
    """The run is durable."""
    if tracing is None or span is None:
        return
    version = launchable.version
    attributes = {
        "graphwright.run_id": run_id,
        "graphwright.tenant": version.tenant,
        "graphwright.graph": version.name,
    }
    tracing.ended(span, attributes)
