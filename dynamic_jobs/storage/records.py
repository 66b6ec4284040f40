"""What the writer takes: one event-log row each, ready to insert, and what it does to its run."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from dagster import DagsterEvent, DagsterEventType, DagsterRunStatus, EventLogEntry
from dagster._core.events import EVENT_TYPE_TO_PIPELINE_RUN_STATUS, JobFailureData

from dynamic_jobs.storage.assets import AssetNews, CheckNews, asset_news, check_news
from dynamic_jobs.storage.outputs import Stored
from dynamic_jobs.storage.serializing import serialize_event
from foundation.ids import NodeId, RunId

_TERMINAL: Final = {
    DagsterRunStatus.SUCCESS,
    DagsterRunStatus.FAILURE,
    DagsterRunStatus.CANCELED,
}

STATUS_OF: Final[dict[DagsterRunStatus, str]] = {
    DagsterRunStatus.QUEUED: "queued",
    DagsterRunStatus.STARTED: "running",
    DagsterRunStatus.CANCELING: "cancelling",
    DagsterRunStatus.SUCCESS: "succeeded",
    DagsterRunStatus.FAILURE: "failed",
    DagsterRunStatus.CANCELED: "cancelled",
}
"""Dagster's run status in our words. STARTING is still ``queued`` to a user: nothing has run."""

TERMINAL_STATUSES: Final = frozenset(STATUS_OF[status] for status in _TERMINAL)


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A run-level event's effect on its run."""

    dagster: DagsterRunStatus
    at: datetime
    failure_reason: str | None

    @property
    def started_at(self) -> datetime | None:
        return self.at if self.dagster is DagsterRunStatus.STARTED else None

    @property
    def ended_at(self) -> datetime | None:
        return self.at if self.dagster in _TERMINAL else None


@dataclass(frozen=True, slots=True)
class Record:
    """One row of ``event_logs`` and what commits together with it."""

    run_id: RunId
    event: str
    event_type: str | None
    at: datetime
    step_key: str | None
    status: StatusChange | None = None
    output: tuple[NodeId, Stored] | None = None
    """A node and its output."""
    asset: AssetNews | None = None
    check: CheckNews | None = None

    @property
    def size(self) -> int:
        """The length of its texts, in characters."""
        stored = self.output[1] if self.output else ""
        return len(self.event) + (len(stored) if isinstance(stored, str) else 0)

    @classmethod
    def of(cls, entry: EventLogEntry, output: tuple[NodeId, Stored] | None = None) -> "Record":
        at = datetime.fromtimestamp(entry.timestamp, UTC)
        event = entry.dagster_event
        if event is None:
            step_key, event_type = entry.step_key, None
            status, asset, check = None, None, None
        else:
            step_key, event_type = event.step_key, event.event_type_value
            kind = DagsterEventType(event_type)
            status = _status_change(kind, event, at)
            asset, check = asset_news(kind, event), check_news(kind, event)
        return cls(
            run_id=RunId(entry.run_id),
            event=serialize_event(entry),
            event_type=event_type,
            at=at,
            step_key=step_key,
            status=status,
            output=output,
            asset=asset,
            check=check,
        )


def _status_change(
    kind: DagsterEventType, event: DagsterEvent, at: datetime
) -> StatusChange | None:
    status = EVENT_TYPE_TO_PIPELINE_RUN_STATUS.get(kind)
    if status is None:
        return None
    reason: str | None = None
    data = event.event_specific_data
    if isinstance(data, JobFailureData) and data.failure_reason:
        reason = data.failure_reason.value
    return StatusChange(status, at, reason if reason != "UNKNOWN" else None)
