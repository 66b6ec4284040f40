"""Traces: trigger ─► run ─► attempts of nodes; ``otlp`` sends them.

A run may move from worker to worker, so its span's id follows from the run's, and the span is made
when the run has ended. All that the workers need of the trigger is one ``traceparent`` in the run's
row.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias
from uuid import UUID

from foundation.ids import RunId
from foundation.settings import Settings

if TYPE_CHECKING:
    from foundation.telemetry.otlp import Tracing

Kind: TypeAlias = Literal["producer", "consumer", "internal"]

# W3C Trace Context, section 3.2: a later version may have more at the end.
_HEADER: Final = re.compile(
    r"(?!ff)([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(-.*)?", re.ASCII
)
_MAX_HEADER: Final = 256
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A place in a trace: a span of it, whose children follow."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @classmethod
    def parse(cls, header: str) -> Self | None:
        """What a ``traceparent`` says; None where it says nothing that makes sense."""
        found = _HEADER.fullmatch(header) if len(header) <= _MAX_HEADER else None
        if found is None:
            return None
        number, trace_id, span_id, flags, more = found.groups()
        if (number == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def sane(header: str | None) -> str | None:
    """The header as we keep it, None where there is none or it makes no sense."""
    given = header and TraceParent.parse(header)
    return str(given) if given else None


def trace_id_of(run_id: RunId, traceparent: str | None) -> str:
    """The trace that a run belongs to, as 32 hexadecimal digits: by default its own."""
    given = traceparent and TraceParent.parse(traceparent)
    return given.trace_id if given else UUID(run_id).hex


@dataclass(frozen=True, slots=True)
class Span:
    """Something that is under way; it is told of when it has ended."""

    here: TraceParent
    parent: str | None
    name: str
    kind: Kind
    began: float


@contextmanager
def tracing(settings: Settings, role: str) -> Generator["Tracing | None"]:
    """The process's tracing, None where ``otlp_endpoint`` names no collector."""
    if not settings.otlp_endpoint:
        yield None
        return
    from foundation.telemetry.otlp import Tracing  # a tenth of a second, and 10 MB

    made = Tracing(settings.otlp_endpoint, role)
    try:
        yield made
    finally:
        made.close()
