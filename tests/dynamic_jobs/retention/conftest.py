"""What the tests of retention share: runs that ended long ago, and what is left of them."""

import asyncio
import secrets
import time
from collections.abc import Generator
from typing import Any
from uuid import UUID

import pytest

from dynamic_jobs.retention import pruning
from dynamic_jobs.retention.removed import Removed
from foundation.database import Connection, connect
from foundation.ids import RunId
from foundation.object_store import ObjectStore, object_store
from foundation.settings import Settings
from tests.dynamic_jobs.conftest import Bench, graph, value
from tests.dynamic_jobs.run_rows import RunRows

DAY = 86_400.0


def prune(settings: Settings, *, dry_run: bool = False) -> Removed:
    return asyncio.run(pruning.prune(settings, dry_run=dry_run, progress=lambda _: None))


def sort_id(days_ago: float) -> str:
    """A UUIDv7 of so long ago."""
    milliseconds = int((time.time() - days_ago * DAY) * 1000)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | secrets.randbits(76)))


def age(connection: Connection, run_id: RunId, days: float) -> None:
    """Have a run that has ended be made and ended so long ago."""
    connection.execute(
        "UPDATE graphwright.runs SET sort_id = %s, created_at = now() - %s * interval '1 day',"
        " ended_at = now() - %s * interval '1 day' WHERE run_id = %s AND ended_at IS NOT NULL",
        (sort_id(days), days, days, run_id),
    )


def count(connection: Connection, table: str, run_id: RunId) -> int:
    statement: Any = f"SELECT count(*) AS rows FROM {table} WHERE run_id::text = %s"
    row = connection.execute(statement, (run_id,)).fetchone()
    assert row is not None
    return row["rows"]


TABLES = ("graphwright.runs", "graphwright.node_outputs", "runs", "run_tags", "event_logs")


def left(connection: Connection, run_id: RunId) -> set[str]:
    """The tables that still have rows of a run."""
    return {table for table in TABLES if count(connection, table, run_id)}


LARGE = graph({"one": value("x" * 1_000)})


@pytest.fixture
def connection(settings: Settings) -> Generator[Connection]:
    with connect(settings.database_url) as opened:
        yield opened


@pytest.fixture
def objects(settings: Settings) -> Generator[ObjectStore]:
    store = object_store(settings.objects_url)
    yield store
    store.close()


def ended_run(settings: Settings, days: float, **more: Any) -> RunRows:
    rows = RunRows(settings.database_url, **more)
    rows.run_whole()
    with connect(settings.database_url) as connection:
        age(connection, rows.run_id, days)
    return rows


def large_run(bench: Bench, days: float) -> RunId:
    """A run whose output is an object."""
    run_id = bench.start(bench.publish(LARGE))
    with bench.worker(inline_output_bytes=10):
        assert bench.wait_for(run_id)["status"] == "succeeded"
    age(bench.connection, run_id, days)
    return run_id


def left_objects(connection: Connection) -> list[str]:
    rows = connection.execute("SELECT object_key FROM graphwright.left_objects")
    return [row["object_key"] for row in rows]
