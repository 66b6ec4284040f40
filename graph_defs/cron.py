"""Cron expressions and the wall clock: when a cron expression is next due in a time zone.

CronSim parses the expression and walks the wall clock, without a zone. What a wall-clock time means
where a zone's clock is put forward or back is decided here, as Debian's cron does:

- An expression whose minute and hour are fixed (neither starts with ``*``) is due once for each
  time that it names. A time that the clock skips is due when the clock goes on; a time that the
  clock shows twice is due the first time.
- Any other is due whenever the clock shows a time that it names: not at all in what is skipped,
  twice in what is shown twice.

docs/timers.md has examples, and where Dagster and croniter differ.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

ALIASES: Final = {
    "@HOURLY": "0 * * * *",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@WEEKLY": "0 0 * * 0",
    "@MONTHLY": "0 0 1 * *",
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
}

_LARGEST: Final = {"minute": 59, "hour": 23, "day-of-month": 31, "month": 12, "day-of-week": 7}
_STEP: Final = re.compile(r"/([0-9]+)")
_REFERENCE: Final = datetime(2000, 1, 1)
_MINUTE: Final = timedelta(minutes=1)


class BadCron(ValueError):
    """What is wrong with a cron expression; the message is a sentence."""


@lru_cache(maxsize=4_096)
def checked_cron(text: str) -> str:
    """The expression in one way of writing. Raises BadCron, also for one that is never due."""
    cron = " ".join(text.upper().split())
    cron = ALIASES.get(cron, cron)
    fields = cron.split()
    if len(fields) != len(_LARGEST):
        raise BadCron("A cron expression has five fields.")
    for (name, largest), field in zip(_LARGEST.items(), fields, strict=True):
        if any(int(step) > largest for step in _STEP.findall(field)):
            raise BadCron(f"The step in the field {name} is larger than the field.")
    try:
        walk = CronSim(cron, _REFERENCE)
    except CronSimError as error:
        raise BadCron(f"{error}.") from None
    if next(walk, None) is None:  # it looks 50 years ahead, in under 2 ms
        raise BadCron("No date is ever like that.")
    return cron


@cache
def zone_names() -> frozenset[str]:
    """The zones of the IANA database that this machine has."""
    return frozenset(available_timezones() - {"localtime"})  # Debian's link to its own zone


@cache
def zone(name: str) -> ZoneInfo:
    """A zone of ``zone_names``: kept, since Python itself keeps few."""
    return ZoneInfo(name)


@lru_cache(maxsize=4_096)
def next_due(cron: str, timezone: str, after: datetime) -> datetime | None:
    """The first due time after ``after`` (aware), in UTC; None where none comes in 50 years, or
    before the year 10000.

    Cached: many timers are due at the same time and next.
    """
    try:
        return _next_due(cron, timezone, after)
    except OverflowError:
        return None


def _next_due(cron: str, timezone: str, after: datetime) -> datetime | None:
    place = zone(timezone)
    local = after.astimezone(place)
    start = local.replace(tzinfo=None, fold=0)
    minute, hour, *_ = cron.split()
    if not (minute.startswith("*") or hour.startswith("*")):
        return next((due for due in _fixed(cron, place, start) if due > after), None)
    first, again = _instants(start, place)
    if again > first:
        start -= again - first  # what the clock has shown once, it shows again
    return _following(cron, place, start, after)


def _fixed(cron: str, place: ZoneInfo, start: datetime) -> Iterator[datetime]:
    for wall in CronSim(cron, start):
        while _is_skipped(wall, place):
            wall += _MINUTE  # noqa: PLW2901
        yield _instants(wall, place)[0]


def _following(cron: str, place: ZoneInfo, start: datetime, after: datetime) -> datetime | None:
    shown_again: datetime | None = None
    for wall in CronSim(cron, start):
        if _is_skipped(wall, place):
            continue
        first, again = _instants(wall, place)
        if first > after:
            return first if shown_again is None else min(first, shown_again)
        if again > after and shown_again is None:
            shown_again = again
    return shown_again


def _instants(wall: datetime, place: ZoneInfo) -> tuple[datetime, datetime]:
    """The first and the last time that the clock shows ``wall``: mostly the same.

    Where the clock skips it, the second comes before the first.
    """
    first = wall.replace(tzinfo=place)
    return first.astimezone(UTC), first.replace(fold=1).astimezone(UTC)


def _is_skipped(wall: datetime, place: ZoneInfo) -> bool:
    first, again = _instants(wall, place)
    return again < first
