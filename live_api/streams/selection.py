"""Which events of many runs a client wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from dynamic_jobs.reading.events import EventType
from dynamic_jobs.reading.many_tail import Chunk, Placed
from dynamic_jobs.reading.stream_inbox import Shared
from foundation.ids import GraphId

RunStatus: TypeAlias = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
"""Those statuses of runs that an event brings about."""

STATUSES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)
TYPES: Final[tuple[EventType, ...]] = get_args(EventType)

_TYPES_OF: Final[dict[RunStatus, frozenset[EventType]]] = {
    "queued": frozenset({"run.queued"}),
    "running": frozenset({"run.started", "run.resumed"}),
    "paused": frozenset({"run.paused"}),
    "succeeded": frozenset({"run.succeeded"}),
    "failed": frozenset({"run.failed"}),
    "cancelled": frozenset({"run.cancelled"}),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What is None selects all. Clients that want the same share the work."""

    graphs: frozenset[GraphId] | None = None
    types: frozenset[EventType] | None = None
    labels: frozenset[str] = frozenset()
    """``key:value``; a run's graph has them all."""

    def __call__(self, events: Sequence[Placed]) -> Chunk:
        if self == Selection() and isinstance(events, Shared):
            return events
        return Shared(each for each in events if self._has(each))

    def _has(self, each: Placed) -> bool:
        return (
            (self.graphs is None or each.graph_id in self.graphs)
            and (self.types is None or each.event["type"] in self.types)
            and self.labels <= each.labels
        )


def types_of(
    types: Sequence[EventType], statuses: Sequence[RunStatus]
) -> frozenset[EventType] | None:
    """The types that are named; of them, those that bring a run to one of ``statuses``, if any."""
    if not types and not statuses:
        return None
    reaching = frozenset[EventType]().union(*(_TYPES_OF[status] for status in statuses))
    if not types:
        return reaching
    return frozenset(types) & reaching if statuses else frozenset(types)
