"""Which due times of a timer that has come due become runs now: pure arithmetic."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from foundation.ids import TriggerId
from graph_defs.recurrence import Recurrence

MISSED_AFTER: Final = timedelta(seconds=60)
"""A due time is missed when its run did not start for so long after it should have."""

_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of a timer's due times that have passed."""

    fires: tuple[datetime, ...]
    """The due times that become runs now, in order."""
    until: datetime
    """The last due time that is dealt with thereby."""
    left_out: bool
    """Whether due times before that start no run."""


def take_turn(
    recurrence: Recurrence,
    catch_up: Literal["none", "latest", "all"],
    trigger_id: TriggerId,
    due_at: datetime,
    fire_at: datetime,
    now: datetime,
    most: int,
) -> Turn:
    """The turn of a timer whose run of ``due_at`` was to start at ``fire_at``, before ``now``.

    It is at most so many due times; what is left waits for the next turn.
    """
    newest = _newest(recurrence, trigger_id, due_at, now)
    first = due_at
    if catch_up == "latest":
        first = newest
    elif catch_up == "none":
        first = _first_not_missed(recurrence, trigger_id, due_at, newest, now)
        late = fire_at if newest == due_at else recurrence.fire_at(UUID(trigger_id), first)
        if now - late > MISSED_AFTER:
            return Turn((), newest, left_out=True)
    fires = [first]
    while fires[-1] < newest and len(fires) < most:
        following = recurrence.next(fires[-1])
        assert following is not None  # `newest` is one
        fires.append(following)
    return Turn(tuple(fires), fires[-1], left_out=first > due_at)


def _newest(
    recurrence: Recurrence, trigger_id: TriggerId, due_at: datetime, now: datetime
) -> datetime:
    """The last due time from ``due_at`` on whose run should have started."""
    latest = recurrence.latest(due_at, now)
    if latest is not None and recurrence.fire_at(UUID(trigger_id), latest) > now:
        # A run starts before the next due time, so that of the one before this has.
        latest = recurrence.latest(due_at, latest - _SECOND)
    return latest or due_at


def _first_not_missed(
    recurrence: Recurrence,
    trigger_id: TriggerId,
    due_at: datetime,
    newest: datetime,
    now: datetime,
) -> datetime:
    """The first due time from ``due_at`` on that is not missed, or ``newest`` if all are."""
    # Jitter may have kept this one's run from starting until later; that of none before it.
    first = recurrence.latest(due_at, now - MISSED_AFTER) or due_at
    if first < newest and now - recurrence.fire_at(UUID(trigger_id), first) > MISSED_AFTER:
        first = recurrence.next(first) or newest
    return first
