"""The audit log: who changed what, when and from where. The database lets nobody change it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import orjson
import psycopg
from psycopg_pool import PoolTimeout

from foundation.database import AsyncConnection, AsyncPool
from foundation.group_commit import GroupCommit
from foundation.ids import TenantId, first_id_of, new_id
from foundation.paging import Page, decode_cursor, encode_cursor
from foundation.tenant_pool import TenantPool

WRITE: Final[LiteralString] = """
INSERT INTO graphwright.audit
       (tenant, audit_id, at, subject, role, token_id, action, target, status, address, request_id,
        user_agent)
SELECT tenant, audit_id, at, subject, role, token_id, action, target, status, address, request_id,
       user_agent
FROM json_to_recordset(%(entries)s::json) AS entry
     (tenant text, audit_id uuid, at timestamptz, subject text, role text, token_id text,
      action text, target json, status smallint, address text, request_id text, user_agent text)
"""

_READ: Final[LiteralString] = """
SELECT audit_id::text, at, subject, role, token_id, action, target, status, address, request_id,
       user_agent
FROM graphwright.audit
WHERE tenant = %(tenant)s AND audit_id >= %(since)s AND audit_id < %(before)s
"""
_NEWEST_FIRST: Final[LiteralString] = " ORDER BY audit_id DESC LIMIT %(limit)s"
ENTRIES: Final[LiteralString] = _READ + _NEWEST_FIRST
ENTRIES_OF_SUBJECT: Final[LiteralString] = _READ + "AND subject = %(subject)s" + _NEWEST_FIRST
ENTRIES_OF_ACTION: Final[LiteralString] = _READ + "AND action = %(action)s" + _NEWEST_FIRST
ENTRIES_OF_BOTH: Final[LiteralString] = (
    _READ + "AND subject = %(subject)s AND action = %(action)s" + _NEWEST_FIRST
)

_FIRST: Final = "00000000-0000-0000-0000-000000000000"
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_WAIT_SECONDS: Final = 2.0
_LATER_SECONDS: Final = 0.5
_AT_ONCE: Final = 1_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change, or what was to be one."""

    tenant: TenantId
    subject: str
    role: str | None
    token_id: str
    action: str
    """The operation's id, as in the OpenAPI document."""
    target: Mapping[str, Any]
    """The parameters of its path."""
    status: int
    """Of the answer."""
    address: str | None
    request_id: str
    user_agent: str | None
    audit_id: str = field(default_factory=new_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class AuditLog:
    """Writes the entries of all tenants, and lists those of one. For one event loop.

    What cannot be written is told to the process's own log, and costs no caller its answer.
    """

    def __init__(self, pool: AsyncPool, tenant_pool: TenantPool) -> None:
        self._tenant_pool = tenant_pool
        self._commits = GroupCommit[Sequence[bytes], None](pool, _store, wait_seconds=_WAIT_SECONDS)
        self._later: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing = set[asyncio.Task[None]]()

    async def add(self, *entries: Entry) -> None:
        """Write them, with what others add in the meantime; returns when they are committed."""
        await self._write([orjson.dumps(entry) for entry in entries])

    def add_later(self, entry: Entry) -> None:
        """Write it within a second, with what others leave until then: for what comes often."""
        self._later.append(orjson.dumps(entry))
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_LATER_SECONDS, self._write_later)

    async def close(self) -> None:
        """Write what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._write_later()
        await asyncio.gather(*self._writing)
        await self._commits.close()

    async def list(
        self,
        tenant: TenantId,
        limit: int,
        cursor: str | None = None,
        *,
        subject: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
    ) -> Page[Entry]:
        """At most ``limit`` entries, the newest first. Raises Invalid for a bad cursor."""
        if subject is None:
            statement = ENTRIES if action is None else ENTRIES_OF_ACTION
        else:
            statement = ENTRIES_OF_SUBJECT if action is None else ENTRIES_OF_BOTH
        given = {
            "tenant": tenant,
            "subject": subject,
            "action": action,
            "since": _FIRST if since is None else first_id_of(since),
            "before": _LAST if cursor is None else decode_cursor(cursor),
            "limit": limit + 1,  # one more tells whether there is a next page
        }
        async with self._tenant_pool.connection(tenant) as connection:
            rows = await (await connection.execute(statement, given)).fetchall()
        entries = [Entry(tenant=tenant, **row) for row in rows[:limit]]
        return Page(entries, encode_cursor(entries[-1].audit_id) if len(rows) > limit else None)

    async def _write(self, entries: Sequence[bytes]) -> None:
        # As JSON already, so that an entry which is none fails by itself, and no batch with it.
        try:
            await self._commits.add(entries, sum(map(len, entries)))
        except (psycopg.Error, PoolTimeout) as error:
            for entry in entries:
                _log.error("this is not in the audit log, for %s: %s", error, entry.decode())

    def _write_later(self) -> None:
        self._timer = None
        entries, self._later = self._later, []
        for first in range(0, len(entries), _AT_ONCE):
            task = asyncio.create_task(self._write(entries[first : first + _AT_ONCE]))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)


async def _store(connection: AsyncConnection, batch: Sequence[Sequence[bytes]]) -> Sequence[None]:
    entries = b",".join(entry for entries in batch for entry in entries)
    await connection.execute(WRITE, {"entries": f"[{entries.decode()}]"})
    return [None] * len(batch)
