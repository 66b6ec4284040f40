"""When a timer is due: pure arithmetic, in UTC and whole seconds."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final, Literal
from uuid import UUID

from graph_defs.cron import BadCron, checked_cron, next_due, zone_names
from graph_defs.suggestions import Suggester
from graph_defs.triggers import TimerTrigger, seconds_of

_SECOND: Final = timedelta(seconds=1)
_LAST: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
_CRON_HINT: Final = (
    "Write minute, hour, day of the month, month and day of the week: `30 4 * * MON-FRI`."
)


class BadTimer(ValueError):
    """A timer that cannot be: which ``field`` of it is wrong, a ``message`` and a ``hint``."""

    def __init__(self, field: Literal["cron", "timezone"], message: str, hint: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The due times of a timer. Equal ones have the same due times and the same jitter.

    Either ``cron`` is given, read in ``timezone``, or ``every``, in seconds.
    """

    cron: str | None
    every: int | None
    timezone: str
    not_after: datetime | None = None
    jitter_seconds: int = 0

    def next(self, after: datetime) -> datetime | None:
        """The first due time that is later than ``after``; None where there is none."""
        after = after.astimezone(UTC).replace(microsecond=0)
        due = self._next(after)
        if due is None or (self.not_after is not None and due > self.not_after):
            return None
        return due

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last due time in ``(after, until]``, in few steps however many there are."""
        due = self.next(after)
        if due is None or due > until:
            return None
        end = until  # there is no due time in (end, until]
        while (following := self.next(due)) is not None and following <= until:
            middle = following + (end - following) / 2
            later = self.next(middle)
            if later is None or later > until:
                due, end = following, middle
            else:
                due = later
        return due

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Every due time in ``[start, end)``, in order."""
        # Due times are whole seconds: what comes after the last one before `start` is in it.
        floor = start.astimezone(UTC).replace(microsecond=0)
        due = self.next(floor if start > floor else floor - _SECOND)
        while due is not None and due < end:
            yield due
            due = self.next(due)

    def fire_at(self, trigger_id: UUID, due_at: datetime) -> datetime:
        """When the run of ``due_at`` starts: later by a share of ``jitter_seconds``.

        The share is random, but always the same for the same due time; and the run starts before
        the next due time in any case.
        """
        if not self.jitter_seconds:
            return due_at
        most = float(self.jitter_seconds)
        if (following := self.next(due_at)) is not None:
            most = min(most, (following - due_at).total_seconds())
        digest = blake2b(f"{trigger_id} {due_text(due_at)}".encode(), digest_size=6).digest()
        share = int.from_bytes(digest, "big") / 2**48
        return due_at + timedelta(microseconds=int(most * share * 1_000_000))

    def _next(self, after: datetime) -> datetime | None:
        if self.every is not None:
            seconds = int(after.timestamp()) // self.every * self.every + self.every
            return datetime.fromtimestamp(seconds, UTC) if seconds <= _LAST else None
        assert self.cron is not None
        return next_due(self.cron, self.timezone, after)


def recurrence_of(trigger: TimerTrigger) -> Recurrence:
    """The due times of a timer as the document has it. Raises BadTimer."""
    cron = None
    if trigger.cron is not None:
        try:
            cron = checked_cron(trigger.cron)
        except BadCron as error:
            raise BadTimer("cron", str(error), _CRON_HINT) from None
        if trigger.timezone not in zone_names():
            hint = Suggester().did_you_mean(trigger.timezone, sorted(zone_names()))
            raise BadTimer(
                "timezone",
                f"There is no time zone `{trigger.timezone}`.",
                hint or "Give its IANA name: `Europe/Berlin`.",
            )
    return Recurrence(
        cron=cron,
        every=None if trigger.every is None else seconds_of(trigger.every),
        timezone=trigger.timezone,
        not_after=None if trigger.not_after is None else datetime.fromisoformat(trigger.not_after),
        jitter_seconds=0 if trigger.jitter is None else seconds_of(trigger.jitter),
    )


def due_text(due_at: datetime) -> str:
    """A due time as causes, params and ids have it: ``2030-01-31T00:00:00Z``."""
    return due_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
