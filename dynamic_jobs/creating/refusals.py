"""Why a trigger was refused, in words."""

from datetime import UTC, datetime, time, timedelta
from typing import ClassVar

from dynamic_jobs.creating.new_run import Refusal
from foundation.errors import GraphwrightError, NotFound, QuotaExceeded
from graph_defs.versions import GraphVersion


class ConcurrencyConflict(GraphwrightError):
    """The graph takes no further run while others of the same key are under way."""

    code: ClassVar[str] = "concurrency_conflict"
    status: ClassVar[int] = 409


class TakesLong(GraphwrightError):
    """What the run takes to be made is more than others can wait for."""

    code: ClassVar[str] = "takes_long"
    status: ClassVar[int] = 503


class NotYet(GraphwrightError):
    """The batch has taken long enough without this run; it has its turn in the next one."""

    code: ClassVar[str] = "not_yet"
    status: ClassVar[int] = 503


def refusal(refused: Refusal, version: GraphVersion) -> GraphwrightError:
    """The error for a run of this version that was not made."""
    match refused:
        case "queue_full":
            return QuotaExceeded(
                "the tenant has as many queued runs as it may have",
                hint="Trigger again when some of them have started, or ask for a higher quota.",
                quota="max_queued",
                tenant=version.tenant,
            )
        case "runs_per_day":
            return QuotaExceeded(
                "the tenant has started as many runs today as it may",
                hint="The day ends at 00:00 UTC; ask for a higher quota.",
                retry_after=_seconds_of_today(),
                quota="max_runs_per_day",
                tenant=version.tenant,
            )
        case "busy":
            return ConcurrencyConflict(
                "as many runs as the graph's `concurrency` allows are under way",
                hint="Trigger again when one has ended, or use `on_conflict: queue`.",
                graph=version.name,
            )
        case "parent_gone":
            return NotFound(
                "the run that was to be repeated is gone",
                hint="Runs are removed some time after their end; trigger the graph instead.",
            )
        case "unpublished" | "key_used":
            raise ValueError(refused)  # these have a way out


def _seconds_of_today() -> int:
    """Whole seconds until the day ends, in UTC."""
    now = datetime.now(UTC)
    end = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
    return int((end - now).total_seconds()) + 1
