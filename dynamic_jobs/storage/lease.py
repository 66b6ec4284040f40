"""A worker's hold on a run, which entitles it to write that run's events, and what may fail."""

from dataclasses import dataclass
from typing import Any, ClassVar

from foundation.errors import GraphwrightError
from foundation.ids import RunId, TenantId


class LeaseLost(GraphwrightError):
    """Another worker holds the run by now; nothing more may be written to it from here."""

    code: ClassVar[str] = "lease_lost"
    status: ClassVar[int] = 409


class EventRefused(GraphwrightError):
    """An event cannot be stored for what it holds, however often it is tried; others can."""

    code: ClassVar[str] = "event_refused"
    status: ClassVar[int] = 500


@dataclass(slots=True)
class Lease:
    """One claim of a run. ``epoch`` counts the run's claims; a write of an older one is refused.

    ``outputs`` (JSON text) and ``error`` are the run's result, set before its terminal event and
    written in that event's transaction.
    """

    tenant: TenantId
    run_id: RunId
    epoch: int
    outputs: str | None = None
    error: dict[str, Any] | None = None
    lost: bool = False
