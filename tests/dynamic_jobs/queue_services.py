"""The real run queue, for tests that drive its statements: one event loop, three writers."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import orjson

from dynamic_jobs.creating.new_run import NewRun, Slot, run_values
from dynamic_jobs.creating.run_batches import RunBatches
from dynamic_jobs.storage import EventWriter
from dynamic_jobs.storage.publisher import Publisher
from foundation.database import AsyncConnection, Connection, async_connect, async_pool, connect
from foundation.ids import new_id
from tests.dynamic_jobs.queue_model import MAX_RUNNING, SLOTS, WEIGHTS, Run

LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
CLEAR: Final[tuple[LiteralString, ...]] = (  # of a few rows: TRUNCATE would make new files
    "DELETE FROM graphwright.runs",
    "DELETE FROM graphwright.run_queue",
    "DELETE FROM graphwright.run_slots",
    "DELETE FROM graphwright.workers",
)
PLACES: Final[LiteralString] = """
SELECT s.tenant, s.slot, s.run_id::text FROM graphwright.run_slots s
JOIN graphwright.runs r ON r.tenant = s.tenant AND r.run_id = s.run_id
WHERE r.ended_at IS NULL
"""
STANDING: Final[LiteralString] = """
SELECT r.run_id::text, r.status, r.epoch, r.strikes, r.worker::text,
    r.ended_at IS NOT NULL AS ended, q.state
FROM graphwright.runs r LEFT JOIN graphwright.run_queue q ON q.run_id = r.run_id
"""


@dataclass
class Services:
    """The real queue: one database, one event loop, one writer for each worker."""

    loop: asyncio.Runner
    sync: Connection
    connection: AsyncConnection
    batches: RunBatches
    slot_batches: RunBatches
    api: EventWriter
    writers: tuple[EventWriter, EventWriter]

    def clear(self) -> None:
        """Forget all runs and workers."""
        for statement in CLEAR:
            self.sync.execute(statement)

    async def create(self, runs: list[Run]) -> list[Any]:
        """Trigger them at once. Of each, why it was refused."""
        created = [
            (self.batches if run.slot is None else self.slot_batches).create(
                run.run_id, _row(run), run.tenant
            )
            for run in runs
        ]
        return await asyncio.gather(*created)


def _row(run: Run) -> bytes:
    not_before = LONG_AGO + timedelta(seconds=run.age, days=36_500 if run.future else 0)
    slot = None if run.slot is None else Slot(run.slot, SLOTS[run.slot])
    new = NewRun(
        run.run_id,
        {},
        {"type": "rest"},
        "tester",
        priority=run.priority,
        not_before=not_before,
        slot=slot,
    )
    return orjson.dumps(
        {
            **run_values(new, LONG_AGO.timestamp()),
            "tenant": run.tenant,
            "graph_id": new_id(),
            "graph_version_id": new_id(),
            "graph": "graph",
            "isolation": "warm",
            "job_name": "job",
            "job_snapshot_id": None,
            "run_body": '{"tags": {}}',
            "tags": {"graphwright/tenant": run.tenant},
            "event": "{}",
        }
    )


@contextmanager
def opened(database_url: str, redis_url: str) -> Generator[Services]:
    with asyncio.Runner() as loop, connect(database_url) as sync:
        for tenant, weight in WEIGHTS.items():
            sync.execute(
                "INSERT INTO graphwright.tenants (tenant, weight, max_running) VALUES (%s, %s, %s)",
                (tenant, weight, MAX_RUNNING[tenant]),
            )
        connection = loop.run(async_connect(database_url))
        pool = async_pool(database_url, size=2)
        loop.run(pool.open())
        writers = [EventWriter(database_url, Publisher(redis_url)) for _ in range(3)]
        batches = RunBatches(pool, 24.0)
        slot_batches = RunBatches(pool, 24.0, take_slots=True)
        try:
            yield Services(
                loop, sync, connection, batches, slot_batches, writers[0], (writers[1], writers[2])
            )
        finally:
            loop.run(batches.close())
            loop.run(pool.close())
            loop.run(connection.close())
            for writer in writers:
                writer.close()
