"""Due times where a zone's clock is put forward or back, against a model, croniter and Dagster."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from dagster._utils.schedules import schedule_execution_time_iterator
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_defs.recurrence import Recurrence

BERLIN = "Europe/Berlin"
MINUTE = timedelta(minutes=1)
SPRING, AUTUMN = datetime(2025, 3, 30), datetime(2025, 10, 26)

CHANGES = [
    (BERLIN, SPRING),
    (BERLIN, AUTUMN),
    ("America/New_York", datetime(2025, 3, 9)),
    ("America/New_York", datetime(2025, 11, 2)),
    ("America/Havana", datetime(2025, 3, 9)),  # at midnight
    ("America/Havana", datetime(2025, 11, 2)),
    ("Australia/Lord_Howe", datetime(2025, 10, 5)),  # by half an hour
    ("Australia/Lord_Howe", datetime(2025, 4, 6)),
    ("Antarctica/Troll", datetime(2025, 3, 30)),  # by two hours
    ("Antarctica/Troll", datetime(2025, 10, 26)),
    ("Africa/Casablanca", datetime(2025, 2, 23)),  # back, for Ramadan
    ("Pacific/Apia", datetime(2011, 12, 30)),  # a whole day is skipped
    ("Asia/Kathmandu", datetime(2025, 3, 30)),  # none
]

crons = st.tuples(
    st.sampled_from(["0", "30", "*", "*/15", "0,30", "59", "10-40/10"]),
    st.sampled_from(["*", "0", "1", "2", "3", "1-3", "*/2", "*/3", "2,3", "23"]),
    st.sampled_from(["*", "*/2", "1-30"]),
    st.just("*"),
    st.sampled_from(["*", "SUN", "*/3"]),
).map(" ".join)


def ours(cron: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    return list(Recurrence(cron, None, zone).between(start, end))


def model(cron: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """The rule, minute by minute."""
    place = ZoneInfo(zone)
    named = CronSim(cron, datetime(2000, 1, 1))
    minute, hour, *_ = cron.split()
    elapsing = minute.startswith("*") or hour.startswith("*")

    def names(wall: datetime) -> bool:
        return (
            wall.minute in named.minutes
            and wall.hour in named.hours
            and wall.month in named.months
            and named.match_day(wall.date())
        )

    due: list[datetime] = []
    instant = start
    while instant < end:
        shown = instant.astimezone(place)
        wall = shown.replace(tzinfo=None, fold=0)
        skipped = (instant - MINUTE).astimezone(place).replace(tzinfo=None, fold=0) + MINUTE
        is_due = names(wall) and (elapsing or shown.fold == 0)
        while skipped < wall and not elapsing:
            is_due = is_due or names(skipped)
            skipped += MINUTE
        if is_due:
            due.append(instant)
        instant += MINUTE
    return due


@settings(max_examples=60, deadline=None)
@given(crons, st.sampled_from(CHANGES))
def test_due_times_are_those_of_the_rule(cron: str, change: tuple[str, datetime]) -> None:
    zone, day = change
    start = day.replace(tzinfo=UTC) - timedelta(hours=30)
    end = start + timedelta(hours=72)
    assert ours(cron, zone, start, end) == model(cron, zone, start, end)


def by_croniter(cron: str, zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    found = croniter(cron, (start - timedelta(seconds=1)).astimezone(ZoneInfo(zone)))
    while (due := found.get_next(datetime).astimezone(UTC)) < end:
        yield due


def by_dagster(cron: str, zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    found = schedule_execution_time_iterator(start.timestamp(), cron, zone, ascending=True)
    for due in found:
        if due.astimezone(UTC) >= end:
            return
        yield due.astimezone(UTC)


def written(due: Iterator[datetime] | list[datetime], zone: str) -> str:
    """Wall-clock times; the second time that the clock shows one has a ``b``."""
    local = [each.astimezone(ZoneInfo(zone)) for each in due]
    return " ".join(f"{each:%H:%M}{'b' * each.fold}" for each in local)


# docs/timers.md has this table.
@pytest.mark.parametrize(
    ("day", "cron", "us", "dagster", "croniters"),
    [
        (SPRING, "30 2 * * *", "03:00", "03:00", "03:00"),
        (SPRING, "0,30 2 * * *", "03:00", "03:00", "03:00"),
        (SPRING, "*/30 2 * * *", "", "03:00", "03:00"),
        (SPRING, "30 * * * *", *["00:30 01:30 03:30 04:30"] * 3),
        (SPRING, "0 */2 * * *", "00:00 04:00", "00:00 03:00 04:00", "00:00 03:00 04:00"),
        (AUTUMN, "30 2 * * *", "02:30", "02:30b", "02:30 02:30b"),
        (AUTUMN, "0,30 2 * * *", "02:00 02:30", "02:00b 02:30b", "02:00 02:30 02:00b 02:30b"),
        (AUTUMN, "*/30 2 * * *", "02:00 02:30 02:00b 02:30b", "02:00b 02:30b",
         "02:00 02:30 02:00b 02:30b"),
        (AUTUMN, "30 * * * *", *["00:30 01:30 02:30 02:30b 03:30 04:30"] * 3),
        (AUTUMN, "0 */2 * * *", "00:00 02:00 02:00b 04:00", "00:00 02:00b 04:00",
         "00:00 02:00 02:00b 04:00"),
    ],
)  # fmt: skip
def test_where_others_differ(
    day: datetime, cron: str, us: str, dagster: str, croniters: str
) -> None:
    start = day.replace(tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)
    end = day.replace(hour=5, tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)
    assert written(ours(cron, BERLIN, start, end), BERLIN) == us
    assert written(by_dagster(cron, BERLIN, start, end), BERLIN) == dagster
    assert written(by_croniter(cron, BERLIN, start, end), BERLIN) == croniters


plain = st.tuples(
    st.sampled_from(["0", "*/15", "0,30", "5-50/5"]),
    st.sampled_from(["*", "9", "*/6", "4,16"]),
    st.sampled_from(["*", "1", "15", "28-31"]),
    st.sampled_from(["*", "2", "1-6", "JAN,OCT"]),
    st.sampled_from(["*", "0", "1-5", "SAT"]),
).map(" ".join)


@pytest.mark.parametrize("other", [by_croniter, by_dagster])
@settings(max_examples=40, deadline=None)
@given(plain, st.dates(datetime(2024, 1, 1).date(), datetime(2029, 1, 1).date()))
def test_without_a_change_of_the_clock_all_agree(
    other: Callable[[str, str, datetime, datetime], Iterator[datetime]], cron: str, day: datetime
) -> None:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = start + timedelta(days=40)
    assert ours(cron, "Asia/Tokyo", start, end) == list(other(cron, "Asia/Tokyo", start, end))
