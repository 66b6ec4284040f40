"""Followers of all runs of a tenant for tests, and transactions that write log lines."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dagster._serdes import serialize_value

from dynamic_jobs.reading.many_position import Position, position_of
from dynamic_jobs.reading.many_tail import Placed
from dynamic_jobs.reading.stream import StreamHub
from foundation.database import AsyncPool, Connection, connect
from foundation.ids import TenantId
from foundation.redis import AsyncRedis
from foundation.tasks import cancel
from foundation.tenant_pool import TenantPool
from tests.databases import Databases
from tests.dynamic_jobs.run_rows import ACME, RunRows, line
from tests.services import SharedPostgres, ensure_template

INSERT = """
INSERT INTO event_logs (run_id, event, timestamp, step_key) VALUES (%s, %s, now(), 'a')
RETURNING id
"""
SEEN = "UPDATE graphwright.runs SET last_event_id = %s WHERE tenant = %s AND run_id = %s"


@pytest.fixture(scope="module")
def databases() -> Generator[Databases]:
    """Of a server of these tests' own: a transaction that is open anywhere holds streams up."""
    with TemporaryDirectory(prefix="gw-") as folder:
        server = SharedPostgres(Path(folder))
        url = server.start()
        try:
            ensure_template(url, "template")
            databases = Databases(url, "template")
            yield databases
            databases.close()
        finally:
            server.stop()


@pytest.fixture
async def hub(pool: AsyncPool, redis: AsyncRedis) -> AsyncIterator[StreamHub]:
    async with StreamHub(pool, TenantPool(pool), redis, silence_seconds=0.05) as opened:
        yield opened


class Client:
    """Follows all runs of a tenant in a task of its own; it can break off, and go on elsewhere."""

    def __init__(self, tenant: TenantId = ACME, after: Position | None = None) -> None:
        self.tenant = tenant
        self.after = after
        self.got: list[Placed] = []
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    async def connect(self, hub: StreamHub) -> None:
        """Follow, from where it was; returns when the stream has begun."""
        self._started.clear()
        self._task = asyncio.create_task(self._follow(hub))
        async with asyncio.timeout(30):
            await self._started.wait()

    async def leave(self) -> None:
        if self._task is not None:
            await cancel(self._task)

    async def has(self, count: int) -> list[str]:
        """What the log lines say, once there are so many."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.got) >= count)
        return self.lines

    @property
    def lines(self) -> list[str]:
        return [each.event["data"]["message"] for each in self.got]

    async def _follow(self, hub: StreamHub) -> None:
        many = hub.many
        async with aclosing(many.follow(self.tenant, self.after, many.inbox())) as items:
            async for item in items:
                if isinstance(item, Position):
                    self.after = position_of(str(item))
                    self._started.set()
                    continue
                for each in item:
                    async with self._changed:
                        self.got.append(each)
                        self.after = position_of(str(each.position))
                        self._changed.notify_all()


@dataclass
class Writing:
    """A transaction that writes log lines as the event writer does, and has not ended."""

    database_url: str
    wrote: list[tuple[RunRows, str]] = field(default_factory=list[tuple[RunRows, str]])

    def __post_init__(self) -> None:
        self._connection: Connection = connect(self.database_url)
        self._connection.autocommit = False
        self._connection.execute("SELECT pg_current_xact_id()")

    def write(self, rows: RunRows, *texts: str) -> None:
        """Draw an id for each line now."""
        for text in texts:
            logged = line("a", text)._replace(run_id=rows.run_id)
            row = self._connection.execute(
                INSERT, (rows.run_id, serialize_value(logged))
            ).fetchone()
            assert row is not None
            self._connection.execute(SEEN, (row["id"], rows.tenant, rows.run_id))
            self.wrote.append((rows, text))

    def commit(self) -> None:
        self._connection.commit()
        self._connection.close()

    def rollback(self) -> None:
        self._connection.rollback()
        self._connection.close()


def write(rows: RunRows, *texts: str) -> None:
    writing = Writing(rows.database_url)
    writing.write(rows, *texts)
    writing.commit()
