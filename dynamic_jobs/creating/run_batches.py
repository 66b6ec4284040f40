"""Group commit: runs that are triggered at the same time are created together."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import psycopg
from psycopg.rows import DictRow

from dynamic_jobs.creating.new_run import Refusal
from dynamic_jobs.creating.statements import CREATE
from dynamic_jobs.queueing.admission import admit_async, lock
from foundation.database import AsyncConnection, AsyncPool
from foundation.errors import GraphwrightError
from foundation.group_commit import GroupCommit
from foundation.ids import RunId, TenantId

_log = logging.getLogger(__name__)


class InDoubt(GraphwrightError):
    """The run may have been created, or not: who triggers again without a key may have two."""

    code: ClassVar[str] = "in_doubt"
    status: ClassVar[int] = 503


@dataclass(frozen=True, slots=True)
class _Run:
    run_id: RunId
    row: bytes
    tenant: TenantId


class RunBatches:
    """Creates the runs of one event loop, a batch at a time."""

    def __init__(self, pool: AsyncPool, key_hours: float, *, take_slots: bool = False) -> None:
        """``key_hours``: how long an Idempotency-Key is kept. Runs that ``take_slots`` have batches
        of their own, since these wait for the locks of their tenants.
        """
        self._key_hours = key_hours
        self._take_slots = take_slots
        self._commits = GroupCommit(pool, self._store)

    async def create(self, run_id: RunId, row: bytes, tenant: TenantId) -> Refusal | None:
        """Create the run of this row, an element of :data:`statements.CREATE`'s values.

        When this returns None, the run is durable; else there is no such run, for that reason. A
        caller that is cancelled does not learn which.

        Raises:
            InDoubt: the connection broke, and the run may or may not be there.
            psycopg.OperationalError, psycopg_pool.PoolTimeout: the database does not answer; there
                is no such run.
        """
        return await self._commits.add(_Run(run_id, row, tenant), len(row))

    async def close(self) -> None:
        """Wait for what is being written."""
        await self._commits.close()

    async def _store(
        self, connection: AsyncConnection, runs: Sequence[_Run]
    ) -> Sequence[Refusal | Exception | None]:
        tenants = {run.tenant for run in runs}
        try:
            created = await self._create(connection, [run.row for run in runs], tenants)
        except psycopg.Error as error:
            if connection.closed:  # before or after the commit: writing it again might double it
                return [_in_doubt(run.run_id, error) for run in runs]
            raise
        return [created[run.run_id]["refused"] for run in runs]

    async def _create(
        self,
        connection: AsyncConnection,
        rows: Sequence[bytes],
        tenants: Collection[TenantId],
    ) -> dict[RunId, DictRow]:
        if self._take_slots:
            # One transaction: whether there is a place stays true until the run has it.
            async with connection.transaction():
                await lock(connection, tenants)
                created = await insert(connection, rows, self._key_hours)
                await admit_async(connection, tenants)
            return created
        created = await insert(connection, rows, self._key_hours)
        if any(row["limited"] for row in created.values()):
            await _admit(connection, tenants)
        return created


async def _admit(connection: AsyncConnection, tenants: Collection[TenantId]) -> None:
    try:
        await admit_async(connection, tenants)
    except psycopg.Error as error:  # the runs are there, and workers look round for them
        _log.warning("runs wait for their places a little longer: %s", error)


async def insert(
    connection: AsyncConnection, rows: Sequence[bytes], key_hours: float = 0.0
) -> dict[RunId, DictRow]:
    """Create the runs of these rows by one statement; what it says of each."""
    values = {"runs": f"[{b','.join(rows).decode()}]", "key_hours": key_hours}
    cursor = await connection.execute(CREATE, values, prepare=True)
    return {RunId(row["run_id"]): row for row in await cursor.fetchall()}


def _in_doubt(run_id: RunId, cause: Exception) -> InDoubt:
    error = InDoubt(
        "the database was lost while the run was being stored, and it may be there or not",
        hint="Send it again with the same Idempotency-Key; without one, see first whether "
        f"`GET /api/v1/runs/{run_id}` finds it.",
        run_id=run_id,
    )
    error.__cause__ = cause
    return error
