"""A million stored timers, and one dispatcher: how late runs are when a few timers are due now and
then, what the dispatcher costs when none is, and how long 100,000 that are due at once take.

Timers come due because SQL sets their times. A run is late by what passes until the beginning of
the transaction that makes it. What idling costs is the processor time of the dispatcher and of
PostgreSQL's processes that serve it.
"""

import time
from datetime import datetime, timedelta
from typing import Final, LiteralString

import psutil

from bench.support.figures import figure, milliseconds
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site, say
from bench.support.timers import GRAPHS, TIMERS, fill, name_of
from foundation.database import Connection, connect

_NOW_AND_THEN: Final = 500
_A_SECOND: Final = 50
_IDLE_SECONDS: Final = 10.0
_AT_ONCE: Final = 100_000
_LEAD: Final = timedelta(seconds=3)
_FAR_LEAD: Final = timedelta(seconds=6)
_POLL_SECONDS: Final = 0.25
_PATIENCE_SECONDS: Final = 120.0

# One timer of as many graphs; due in turn, at a whole second with up to one second of jitter.
SPREAD: Final[LiteralString] = """
WITH chosen AS (
    SELECT t.trigger_id, %(first)s + (row_number() OVER () - 1) * %(apart)s AS fire_at
    FROM graphwright.triggers t JOIN graphwright.timers USING (trigger_id)
    WHERE t.tenant <> 'default' AND t.name = %(name)s
    LIMIT %(count)s
)
UPDATE graphwright.timers t SET due_at = date_trunc('second', c.fire_at), fire_at = c.fire_at
FROM chosen c WHERE t.trigger_id = c.trigger_id
RETURNING t.trigger_id::text, t.fire_at
"""

# Some timers of every graph; due at the same second, in no order.
AT_ONCE: Final[LiteralString] = """
UPDATE graphwright.timers t SET
    due_at = date_trunc('second', %(at)s), fire_at = %(at)s - random() * interval '100 ms'
FROM graphwright.triggers g
WHERE g.trigger_id = t.trigger_id AND g.tenant <> 'default' AND g.name = ANY(%(names)s)
"""

NOW: Final[LiteralString] = "SELECT clock_timestamp() AS now"
QUEUED: Final[LiteralString] = "SELECT count(*) AS queued FROM graphwright.run_queue"
RUNS: Final[LiteralString] = """
SELECT trigger ->> 'trigger_id' AS trigger_id, created_at FROM graphwright.runs
WHERE trigger ->> 'type' = 'timer'
"""
SERVING: Final[LiteralString] = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def measure(site: Site) -> Answer:
    with site.quiet(), site.roles() as roles, connect(roles.client.database) as database:
        stored = fill(roles.client)
        roles.end("api")
        dispatcher = roles.start("dispatcher").pid
        _spread(database, name_of(0), 1)  # until it is up
        drifts = _spread(database, name_of(1), _NOW_AND_THEN)
        idle = _idle(database, dispatcher)
        seconds = _at_once(database)
        _check(database, 1 + _NOW_AND_THEN + _AT_ONCE)
    return Answer(
        {
            "p99 of being late": milliseconds(drifts, 0.99),
            "p50 of being late": milliseconds(drifts),
            "idle": figure([idle], "% of a core"),
            "100,000 at once": figure([seconds], "s"),
            "stored": figure([stored], ""),
        }
    )


def _spread(database: Connection, name: str, count: int) -> list[float]:
    """Let so many timers of this name be due, 50 a second; the seconds by which runs were late."""
    values = {
        "first": _now(database) + _LEAD,
        "apart": timedelta(seconds=1 / _A_SECOND),
        "name": name,
        "count": count,
    }
    before = _queued(database)
    rows = database.execute(SPREAD, values).fetchall()
    due = {row["trigger_id"]: row["fire_at"] for row in rows}
    _wait(database, before + count)
    created = {row["trigger_id"]: row["created_at"] for row in database.execute(RUNS)}
    return [(created[trigger] - at).total_seconds() for trigger, at in due.items()]


def _idle(database: Connection, dispatcher: int) -> float:
    """The share of a core that is used while nothing is due, in per cent."""
    before, began = _used(database, dispatcher), time.perf_counter()
    time.sleep(_IDLE_SECONDS)
    after, seconds = _used(database, dispatcher), time.perf_counter() - began
    used = {pid: took - before.get(pid, 0.0) for pid, took in after.items()}
    own = used[dispatcher] / seconds * 100
    whole = sum(used.values()) / seconds * 100
    say(f"  idle: {whole:.2f} % of a core, of which the dispatcher {own:.2f}")
    return whole


def _used(database: Connection, dispatcher: int) -> dict[int, float]:
    """The processor seconds of the dispatcher and of those that serve it, by process."""
    serving = [row["pid"] for row in database.execute(SERVING)]
    times = {pid: psutil.Process(pid).cpu_times() for pid in (dispatcher, *serving)}
    return {pid: spent.user + spent.system for pid, spent in times.items()}


def _at_once(database: Connection) -> float:
    """Seconds until so many timers that are due at once have their runs."""
    before = _queued(database)
    at = _now(database) + _FAR_LEAD
    names = [name_of(number) for number in range(TIMERS)[-_AT_ONCE // GRAPHS :]]
    changed = database.execute(AT_ONCE, {"at": at, "names": names}).rowcount
    if changed != _AT_ONCE:
        raise RuntimeError(f"{changed} timers are due, and not {_AT_ONCE}")
    began = max(at, _now(database))
    _wait(database, before + _AT_ONCE)
    return (_now(database) - began).total_seconds()


def _wait(database: Connection, queued: int) -> None:
    """Until so many runs are queued."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := _queued(database)) < queued:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {found} of {queued} runs are queued")
        time.sleep(_POLL_SECONDS)


def _check(database: Connection, expected: int) -> None:
    found = {row["trigger_id"] for row in database.execute(RUNS)}
    if len(found) != expected:
        raise RuntimeError(f"{expected} timers were due, but {len(found)} have a run")


def _queued(database: Connection) -> int:
    row = database.execute(QUEUED).fetchone()
    assert row is not None
    return row["queued"]


def _now(database: Connection) -> datetime:
    row = database.execute(NOW).fetchone()
    assert row is not None
    return row["now"]


QUESTION: Final = Question(
    title="1,000,000 timers of 10,000 graphs that have run, one dispatcher",
    aims=(
        Aim("p99 of being late", 1_000, "ms"),
        Aim("idle", 2, "% of a core"),
        Aim("100,000 at once", 30, "s"),
    ),
    measure=measure,
)
