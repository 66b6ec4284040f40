"""Removal in small batches: by workers that take turns, or by the operator at once."""

import asyncio
import itertools
import json
import os
import time

import pytest

from dynamic_jobs.retention import batch as batches
from dynamic_jobs.retention import pruning, statements
from dynamic_jobs.retention.objects import delete_left_objects
from dynamic_jobs.retention.removed import Removed
from dynamic_jobs.retention.walk import Position
from foundation.database import Connection, async_connect, connect
from foundation.object_store import ObjectStore
from foundation.settings import Settings
from tests import forking
from tests.dynamic_jobs.conftest import Bench
from tests.dynamic_jobs.retention.conftest import (
    TABLES,
    age,
    count,
    ended_run,
    large_run,
    left,
    left_objects,
    sort_id,
)
from tests.dynamic_jobs.run_rows import RunRows, line


def test_a_worker_removes_old_runs(
    bench: Bench, connection: Connection, objects: ObjectStore
) -> None:
    old, young = large_run(bench, 31), large_run(bench, 29)
    bench.connection.execute("UPDATE graphwright.retention SET next_at = now()")
    with bench.worker():
        deadline = time.monotonic() + 60
        while count(connection, "graphwright.runs", old):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert left(connection, old) == set()
    assert left(connection, young) == set(TABLES)

    # Who has read the row may still read the object; it goes later.
    (noted,) = left_objects(connection)
    assert set(objects.keys("outputs")) > {noted}

    async def delete(seconds: float) -> int:
        async with await async_connect(bench.settings.database_url) as other:
            return await delete_left_objects(other, objects, seconds)

    assert asyncio.run(delete(3_600)) == 0
    assert asyncio.run(delete(0)) == 1
    assert noted not in set(objects.keys("outputs"))
    assert left_objects(connection) == []


def test_workers_take_turns(settings: Settings, connection: Connection) -> None:
    walk = {"walk": "runs"}
    with connection.transaction():
        assert connection.execute(statements.TURN, walk).fetchone() is not None
        with connect(settings.database_url) as other:
            assert other.execute(statements.TURN, walk).fetchone() is None, "another has it"
        told = {**walk, "tenant": "a", "sort_id": sort_id(1), "pause": 60}
        connection.execute(statements.ADVANCE, told)
    assert connection.execute(statements.TURN, walk).fetchone() is None, "it is not time"
    other_walk = connection.execute(statements.TURN, {"walk": "deliveries"}).fetchone()
    assert other_walk == {"tenant": "", "sort_id": Position().sort_id}


def test_batches_are_bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_RUNS", 3)
    monkeypatch.setattr(batches, "MOST_EVENTS", 30)
    for _ in range(7):
        ended_run(settings, 40)
    large = RunRows(settings.database_url)
    large.write(*[line("a", "x") for _ in range(50)])
    large.succeed()
    with connect(settings.database_url) as connection:
        age(connection, large.run_id, 39)
    totals: list[Removed] = [Removed()]
    asyncio.run(pruning.prune(settings, dry_run=False, progress=totals.append))
    steps = [
        (after.runs - before.runs, after.events - before.events)
        for before, after in itertools.pairwise(totals)
    ]
    assert sum(runs for runs, _ in steps) == 8
    assert all(runs <= 3 and (events <= 30 or runs == 1) for runs, events in steps), steps
    assert (1, 51) in steps, "a run is removed whole"


def test_the_command(settings: Settings, connection: Connection) -> None:
    rows = ended_run(settings, 31)

    def run(*options: str) -> dict[str, int]:
        environment = {
            **os.environ,
            "GRAPHWRIGHT_DATABASE_URL": settings.database_url,
            "GRAPHWRIGHT_STATE": str(settings.state),
        }
        done = forking.run(["prune", *options], environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    counted = run("--dry-run")
    assert counted["runs"] == 1
    assert left(connection, rows.run_id)
    assert run() == counted
    assert left(connection, rows.run_id) == set()
    assert not any(run().values())
