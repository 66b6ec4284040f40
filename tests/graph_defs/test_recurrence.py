"""When timers are due: what is taken, and arithmetic over any recurrence."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_defs.cron import next_due
from graph_defs.recurrence import BadTimer, Recurrence, due_text, recurrence_of
from graph_defs.triggers import TimerTrigger

TRIGGER = UUID("01890000-0000-7000-8000-000000000001")
SECOND = timedelta(seconds=1)

minutes = st.sampled_from(["0", "*", "*/15", "30", "0,20,59", "5-10"])
hours = st.sampled_from(["*", "2", "1-3", "*/2", "0", "23"])
days = st.sampled_from(["*", "1", "29", "L", "*/2"])
months = st.sampled_from(["*", "2", "3,10", "JAN-JUN"])
weekdays = st.sampled_from(["*", "0", "MON-FRI", "SUN#1"])
zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
)
crons = st.builds(
    lambda *fields: Recurrence(cron=" ".join(fields[:5]), every=None, timezone=fields[5]),
    minutes,
    hours,
    days,
    months,
    weekdays,
    zones,
)
everies = st.sampled_from([Recurrence(None, seconds, "UTC") for seconds in (1, 7, 60, 900, 86_400)])
recurrences = st.one_of(crons, everies)
instants = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))


def timer(**fields: Any) -> Recurrence:
    return recurrence_of(TimerTrigger(type="timer", **fields))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "due"),
    [
        ("*/20 * * * *", ["2030-01-01T00:20", "2030-01-01T00:40", "2030-01-01T01:00"]),
        ("0 9-17/4 * * *", ["2030-01-01T09:00", "2030-01-01T13:00", "2030-01-01T17:00"]),
        ("30 4 * * mon-fri", ["2030-01-01T04:30", "2030-01-02T04:30", "2030-01-03T04:30"]),
        ("0 0 * * 7", ["2030-01-06T00:00", "2030-01-13T00:00", "2030-01-20T00:00"]),
        ("0 0 1 JAN,jul *", ["2030-07-01T00:00", "2031-01-01T00:00", "2031-07-01T00:00"]),
        ("0 0 L * *", ["2030-01-31T00:00", "2030-02-28T00:00", "2030-03-31T00:00"]),
        ("0 0 LW * *", ["2030-01-31T00:00", "2030-02-28T00:00", "2030-03-29T00:00"]),
        ("0 0 * * MON#2", ["2030-01-14T00:00", "2030-02-11T00:00", "2030-03-11T00:00"]),
        ("0 0 * * 5L", ["2030-01-25T00:00", "2030-02-22T00:00", "2030-03-29T00:00"]),
        ("0 0 13 * FRI", ["2030-01-04T00:00", "2030-01-11T00:00", "2030-01-13T00:00"]),
        ("0 0 */13 * FRI", ["2030-02-01T00:00", "2030-03-01T00:00", "2030-06-14T00:00"]),
        ("0 0 29 2 *", ["2032-02-29T00:00", "2036-02-29T00:00", "2040-02-29T00:00"]),
        ("@Weekly", ["2030-01-06T00:00", "2030-01-13T00:00", "2030-01-20T00:00"]),
        ("  0\t3 * * * ", ["2030-01-01T03:00", "2030-01-02T03:00", "2030-01-03T03:00"]),
    ],
)
def test_what_cron_expressions_say(cron: str, due: list[str]) -> None:
    found = islice(timer(cron=cron).between(at("2030-01-01T00:00:01"), at("2060-01-01")), 3)
    assert list(found) == [at(each) for each in due]


@pytest.mark.parametrize(
    "cron",
    [
        "* * * *",
        "* * * * * *",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 */8 2 MON#5",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "*/90 * * * *",
        "0 */25 * * *",
        "5-1 * * * *",
        "0 0 * * FRI-MON",
        "0 0 * * MON#6",
        "0 0 ? * *",
        "@reboot",
        "@every 5m",
        "٣ * * * *",
        "a b c d e",
        "* " * 100,
    ],
)
def test_a_cron_that_is_none_or_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(BadTimer) as raised:
        timer(cron=cron)
    assert raised.value.field == "cron"
    assert raised.value.message.endswith(".")
    assert "`30 4 * * MON-FRI`" in raised.value.hint


@pytest.mark.parametrize(
    "zone", ["Europe/Bonn", "europe/berlin", "localtime", "../UTC", "Europe", "/etc/localtime", ""]
)
def test_a_zone_that_is_not_known_is_refused(zone: str) -> None:
    with pytest.raises(BadTimer) as raised:
        timer(cron="0 0 * * *", timezone=zone)
    assert raised.value.field == "timezone"
    assert raised.value.hint


def test_a_zone_that_was_probably_meant_is_named() -> None:
    with pytest.raises(BadTimer) as raised:
        timer(cron="0 0 * * *", timezone="europe/berlin")
    assert raised.value.hint == "Did you mean `Europe/Berlin`?"


@given(st.text(max_size=30))
def test_any_text_is_refused_in_words_or_is_due(cron: str) -> None:
    try:
        recurrence = timer(cron=cron or "*")
    except BadTimer:
        return
    assert recurrence.next(at("2030-01-01")) is not None


def test_every_counts_from_1970_in_utc() -> None:
    every = timer(every="7m")
    due = every.next(at("2030-01-01"))
    assert due is not None
    assert due.timestamp() % 420 == 0
    assert due - at("2030-01-01") <= timedelta(minutes=7)


def test_none_is_due_after_not_after_which_is_included() -> None:
    until = timer(cron="0 0 * * *", not_after="2030-01-03T01:00:00+01:00")
    assert until.next(at("2030-01-02T00:00")) == at("2030-01-03T00:00")
    assert until.next(at("2030-01-03T00:00")) is None
    assert until.latest(at("2030-01-01"), at("2030-02-01")) == at("2030-01-03T00:00")


@pytest.mark.parametrize(
    "fields",
    [
        {"every": "1s"},
        {"cron": "59 23 31 12 *"},
        {"cron": "* * * * *", "timezone": "Asia/Tokyo"},
        {"cron": "59 23 31 12 *", "timezone": "America/New_York"},
        {"cron": "0 0 29 2 */7"},
    ],
)
def test_no_due_time_comes_after_the_last_year_of_the_calendar(fields: dict[str, str]) -> None:
    assert timer(**fields).next(at("9999-12-31T23:59:59")) is None


@given(recurrences, instants)
def test_next_is_the_first_due_time_after(recurrence: Recurrence, after: datetime) -> None:
    due = recurrence.next(after)
    assert due is not None
    assert due > after
    assert due.tzinfo is UTC
    assert due.microsecond == 0
    between = after + (due - after) / 2
    if between < due:
        assert recurrence.next(between) == due


@given(recurrences, instants, st.timedeltas(timedelta(), timedelta(days=2)))
def test_between_is_every_due_time_of_the_range(
    recurrence: Recurrence, start: datetime, length: timedelta
) -> None:
    end = start + length
    due = list(islice(recurrence.between(start, end), 200))
    assert all(start <= each < end for each in due)
    assert all(recurrence.next(before) == after for before, after in pairwise(due))
    first = recurrence.next(start - SECOND)
    assert first is not None
    if start <= first < end:
        assert due[0] == first


@given(crons, instants, st.timedeltas(timedelta(), timedelta(days=60)))
def test_latest_is_the_last_due_time_of_the_range(
    recurrence: Recurrence, after: datetime, length: timedelta
) -> None:
    until = after + length
    latest = recurrence.latest(after, until)
    if latest is None:
        following = recurrence.next(after)
        assert following is None or following > until
    else:
        assert after < latest <= until
        following = recurrence.next(latest)
        assert following is None or following > until


@pytest.mark.parametrize("fields", [{"cron": "* * * * *"}, {"every": "1s"}])
def test_latest_looks_at_few_of_many_due_times(fields: dict[str, str]) -> None:
    next_due.cache_clear()
    recurrence = timer(**fields)
    assert recurrence.latest(at("2020-01-01"), at("2030-01-01")) == at("2030-01-01")
    assert next_due.cache_info().misses < 100  # of five million


@given(recurrences, instants, st.integers(1, 100_000))
def test_a_run_starts_at_the_same_time_within_the_jitter_before_the_next(
    recurrence: Recurrence, after: datetime, seconds: int
) -> None:
    jittered = Recurrence(
        recurrence.cron, recurrence.every, recurrence.timezone, jitter_seconds=seconds
    )
    due = jittered.next(after)
    assert due is not None
    fire = jittered.fire_at(TRIGGER, due)
    following = jittered.next(due)
    assert following is not None
    assert due <= fire < min(due + timedelta(seconds=seconds), following)
    assert fire == jittered.fire_at(TRIGGER, due)


def test_jitter_is_spread_evenly() -> None:
    daily = timer(cron="0 0 * * *", jitter="100s")
    due = at("2030-01-01")
    shares = sorted(
        (daily.fire_at(UUID(int=number), due) - due).total_seconds() for number in range(1_000)
    )
    assert all(abs(share - place / 10) < 6 for place, share in enumerate(shares))


def test_due_times_are_written_in_utc() -> None:
    assert due_text(datetime.fromisoformat("2030-01-31T01:00:00+01:00")) == "2030-01-31T00:00:00Z"
