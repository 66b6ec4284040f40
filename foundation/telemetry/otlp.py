"""Spans on their way to a collector, as OTLP over HTTP.

They are built as they are sent, once what they tell of is over. The SDK asks that its tracer build
them, but that takes a multiple of the time, and draws all ids itself.
"""

import random
import time
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Final
from uuid import UUID

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from foundation.ids import RunId
from foundation.telemetry.tracing import Kind, Span, TraceParent

_QUEUED_SPANS: Final = 2**15
_BATCH_SPANS: Final = 512
_BATCH_MILLISECONDS: Final = 1_000
_EXPORT_SECONDS: Final = 5
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}
_OK: Final = Status(StatusCode.OK)


class Tracing:
    """Sends the spans of one process; a thread of its own does. Make it after any fork."""

    def __init__(self, endpoint: str, role: str) -> None:
        """``endpoint`` is the collector's, as ``http://host:4318``."""
        url = f"{endpoint.rstrip('/')}/v1/traces"
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(url, timeout=_EXPORT_SECONDS),
            max_queue_size=_QUEUED_SPANS,
            max_export_batch_size=_BATCH_SPANS,
            schedule_delay_millis=_BATCH_MILLISECONDS,
        )
        number = version("graphwright")
        self._resource = Resource.create(
            {"service.name": f"graphwright-{role}", "service.version": number}
        )
        self._scope = InstrumentationScope("graphwright", number)

    def trigger(self, run_id: RunId, traceparent: str | None) -> Span:
        """A run is being made: its trace begins here, or goes on from where it was asked for."""
        given = TraceParent.parse(traceparent) if traceparent else None
        trace_id = given.trace_id if given else UUID(run_id).hex
        here = TraceParent(trace_id, _new_span_id(), given is None or given.sampled)
        return Span(here, given and given.span_id, "trigger", "producer", time.time())

    def run(self, run_id: RunId, traceparent: str | None, began: float) -> Span:
        """A run, wherever it is executed: each worker gives it the same id."""
        given = TraceParent.parse(traceparent) if traceparent else None
        number = UUID(run_id)
        here = TraceParent(
            given.trace_id if given else number.hex,
            number.hex[16:],
            given is None or given.sampled,
        )
        return Span(here, given and given.span_id, "run", "consumer", began)

    def ended(
        self, span: Span, attributes: Mapping[str, str | int], error: str | None = None
    ) -> None:
        """Tell of a span that has ended now; ``error`` is the code of what it failed by."""
        if span.here.sampled:
            self._send(span, attributes, error)

    def node(
        self,
        run: Span,
        node_type: str,
        began: datetime,
        attributes: Mapping[str, str | int],
        error: str | None,
    ) -> None:
        """Tell of an attempt of a node that has ended now."""
        if run.here.sampled:
            here = TraceParent(run.here.trace_id, _new_span_id())
            span = Span(here, run.here.span_id, node_type, "internal", began.timestamp())
            self._send(span, attributes, error)

    def close(self) -> None:
        """Send what is left, if the collector takes it."""
        self._processor.shutdown()

    def _send(self, span: Span, attributes: Mapping[str, str | int], error: str | None) -> None:
        here, parent = span.here, span.parent
        status = _OK if error is None else Status(StatusCode.ERROR, error)
        self._processor.on_end(
            ReadableSpan(
                span.name,
                _context(here.trace_id, here.span_id),
                parent=_context(here.trace_id, parent, remote=True) if parent else None,
                resource=self._resource,
                attributes=attributes,
                kind=_KINDS[span.kind],
                status=status,
                start_time=int(span.began * 1e9),
                end_time=max(time.time_ns(), int(span.began * 1e9)),
                instrumentation_scope=self._scope,
            )
        )


def _context(trace_id: str, span_id: str, *, remote: bool = False) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, flags)


def _new_span_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"
