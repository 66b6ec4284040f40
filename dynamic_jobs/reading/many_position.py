"""A place in the events of many runs.

Event ids are given before commit, so between runs they are no order: an event may appear below one
that a client has already. What is settled is a transaction: PostgreSQL's snapshots have an ``xmin``
below which every transaction has ended, for good. So events are given out in *chunks*, each of all
transactions from one such bound to the next, in the order of their ids.

In a run that is the order of the run: a transaction that waited for another's lock on the run draws
its ids after it, and ends after it, so a bound that has settled the later has settled the earlier.
"""

import re
from dataclasses import dataclass
from typing import Final

from dynamic_jobs.reading.event_log import BadEventId

POSITION: Final = r"^[0-9]{1,18}(-[0-9]{1,18}){3}$"
"""What a position from outside looks like; each number is below 2**63, as in the database."""


@dataclass(frozen=True, slots=True)
class Position:
    """Seen are all events of transactions below ``done``; and, of those from there to below
    ``upto``, the ones with ids up to ``event``.

    ``floor``: events of transactions from ``done`` on have ids above it. It is not part of the
    place, but saves looking for them everywhere.
    """

    floor: int
    done: int
    upto: int
    event: int

    def __str__(self) -> str:
        return f"{self.floor}-{self.done}-{self.upto}-{self.event}"


def position_of(text: str) -> Position:
    """A position from outside. Raises :class:`BadEventId`."""
    if re.fullmatch(POSITION, text):
        position = Position(*map(int, text.split("-")))
        if position.done <= position.upto:
            return position
    raise BadEventId(
        f"{text[:80]!r} is no place in a stream of many runs",
        hint="Send the last `id` that the stream gave you, unchanged, or none at all. Those within "
        "the events count in the stream of their run only.",
    )
