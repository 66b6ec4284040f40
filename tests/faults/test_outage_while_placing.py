"""PostgreSQL is away while runs are placed and run in processes and pods of their own: none is
lost, none is placed beside itself, none fails for it."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from psycopg.types.json import Jsonb

from foundation.database import connect
from tests.cluster.clusters import Cluster, cluster
from tests.cluster.stack import dagster_yaml
from tests.faults.installation import Installation, installation
from tests.faults.outside import Outside, outside
from tests.faults.test_killed_workers import publish, trigger

LEASE_SECONDS: Final = 4
"""Shorter than an outage, and longer than a process stands still on a machine with much to do."""

# Each start of each node: a run that was placed twice has some of its nodes started twice.
STARTS: Final = """
SELECT run_id, step_key AS node, count(*) AS times FROM event_logs
WHERE dagster_event_type = 'STEP_START' GROUP BY run_id, step_key HAVING count(*) > 1
"""

LAST_OF_A_ROUND: Final = """
SELECT max(query_start) AS at FROM pg_stat_activity
WHERE query LIKE '%RECURSIVE ahead%' AND pid <> pg_backend_pid()
"""


def document(isolation: str, url: str) -> dict[str, Any]:
    """Two calls of the world outside, with seconds between them; a lost run would fail."""
    call: dict[str, Any] = {"method": "POST", "url": url, "json": {}}
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": isolation},
        "isolation": isolation,
        "on_lost": "fail",
        "nodes": {
            "one": {"type": "http.request", "with": call},
            "rest": {"type": "work.sleep", "needs": ["one"], "with": {"seconds": 2}},
            "two": {"type": "http.request", "needs": ["rest"], "with": call},
        },
    }


def until(look: Callable[[], bool], what: str) -> None:
    """Wait until it sees something."""
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.05)


def allow(made: Installation) -> None:
    """Let tenants have runs in processes and pods."""
    with connect(made.settings.database_url) as connection:
        connection.execute(
            "UPDATE graphwright.tenants SET isolations = %s, placement = %s WHERE tenant = ''",
            (["process", "kubernetes"], Jsonb({"kubernetes": {}})),
        )


def holder(made: Installation) -> psutil.Process:
    """The worker process that has the only run."""
    with connect(made.settings.database_url) as connection:
        row = connection.execute(
            "SELECT w.pid FROM graphwright.runs r JOIN graphwright.workers w USING (worker)"
        ).fetchone()
    assert row is not None
    return psutil.Process(row["pid"])


def look(made: Installation) -> datetime | None:
    """When a worker that reaches the database has last ended a round of its tending."""
    with connect(made.settings.database_url) as connection:
        row = connection.execute(LAST_OF_A_ROUND).fetchone()
    assert row is not None
    return row["at"]


def test_nobody_is_taken_for_dead_because_of_an_outage() -> None:
    """The first who reaches the database again finds that nobody else was heard of for long."""
    lease = 6
    with (
        installation(lease_seconds=lease, worker_processes=2) as made,
        outside(delay_seconds=0.2) as world,
    ):
        world.answering.clear()  # the run does not end before there is an outage
        url, headers = made.api(), made.headers()
        publish(url, headers, document("warm", world.url))
        made.start("worker")
        made.until_working(2)
        (run,) = trigger(url, headers, "warm", 1)
        until(lambda: bool(world.calls), "call of the run")
        slow = holder(made)
        made.postgres.stop()
        slow.suspend()  # it will be the last to come back
        world.answering.set()
        time.sleep(0.6 * lease)
        made.postgres.start()
        with connect(made.settings.database_url) as connection:
            connection.execute("UPDATE graphwright.workers SET seen_at = now() - interval '1 hour'")
        for _ in range(2):  # the other one looks for the dead, in a whole round
            last = look(made)
            until(lambda last=last: look(made) not in (None, last), "look for the dead")
        slow.resume()
        made.until_ended(1, 60)
        assert made.outcomes() == {("succeeded", None): 1}
        assert [len(world.calls[f"{run}.{node}"]) for node in ("one", "two")] == [1, 1]


def begun(world: Outside, runs: list[str]) -> bool:
    """Whether one of them has called the world outside."""
    return any(f"{run}.one" in world.calls for run in runs)


def give(pods: Cluster, made: Installation) -> None:
    """What pods need of the installation."""
    names = ("DATABASE_URL", "REDIS_URL", "HTTP_PRIVATE", "LEASE_SECONDS")
    variables = (f"GRAPHWRIGHT_{name}" for name in names)
    pods.give({name: made.environment[name] for name in variables})


def stopped(made: Installation, seconds: float) -> None:
    """PostgreSQL is stopped, and connections to it end."""
    made.postgres.stop()
    time.sleep(seconds)
    made.postgres.start()


def frozen(made: Installation, seconds: float) -> None:
    """PostgreSQL answers nobody, and no connection ends."""
    assert made.postgres.pid is not None
    server = psutil.Process(made.postgres.pid)
    server.suspend()  # before its children, or it would have others
    children = server.children()
    for child in children:
        child.suspend()
    time.sleep(seconds)
    for process in (*children, server):
        process.resume()


def _away(
    folder: Path, runs: int, outage: Callable[[Installation, float], None], seconds: float
) -> str:
    """With so many runs of each kind under way, and as many that have just been triggered."""
    path = folder / "dagster.yaml"
    with cluster(folder) as pods, outside(delay_seconds=0.2) as world:
        path.write_text(dagster_yaml(pods), "utf-8")
        with installation(
            dagster_yaml=str(path), lease_seconds=LEASE_SECONDS, worker_processes=2
        ) as made:
            give(pods, made)
            allow(made)
            url, headers = made.api(), made.headers()
            made.start("worker")
            made.until_working(2)
            for isolation in ("process", "kubernetes"):
                publish(url, headers, document(isolation, world.url))
            early = [
                *trigger(url, headers, "process", runs),
                *trigger(url, headers, "kubernetes", runs),
            ]
            until(lambda: begun(world, early), "call of a run")
            late = [
                *trigger(url, headers, "kubernetes", runs),
                *trigger(url, headers, "process", runs),
            ]
            outage(made, seconds)
            made.until_ended(4 * runs, 120)
            assert made.outcomes() == {("succeeded", None): 4 * runs}
            with connect(made.settings.database_url) as connection:
                assert connection.execute(STARTS).fetchall() == []
                queue = connection.execute("SELECT state FROM graphwright.run_queue").fetchall()
            assert queue == []
            calls = {f"{run}.{node}" for run in (*early, *late) for node in ("one", "two")}
            assert set(world.calls) == calls
            assert {len(each) for each in world.calls.values()} == {1}
            how = f"PostgreSQL {outage.__name__} for {seconds:g} s"
            return f"{4 * runs} runs, {how}: each node ran once"


@pytest.mark.timeout(180)
def test_postgres_away_for_a_while(tmp_path: Path) -> None:
    _away(tmp_path, 1, stopped, seconds=5)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("outage", [stopped, frozen])
def test_postgres_away_for_45_seconds(
    tmp_path: Path, outage: Callable[[Installation, float], None]
) -> None:
    print(_away(tmp_path, 6, outage, seconds=45))
