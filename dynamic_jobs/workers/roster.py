"""The workers of an installation, as its operator sees them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from foundation.database import Connection

LIST: Final[LiteralString] = """
SELECT w.worker::text, w.host, w.pid, w.pool, w.started_at AS since, w.seen_at AS seen, (
    SELECT count(*) FROM graphwright.runs r WHERE r.worker = w.worker AND r.ended_at IS NULL
) AS runs, w.idle, w.draining
FROM graphwright.workers w ORDER BY w.host, w.pool, w.pid
"""

# Its whole pool, for its parent process would replace it.
DRAIN: Final[LiteralString] = """
UPDATE graphwright.workers w SET draining = true
FROM graphwright.workers named
WHERE named.worker = %s AND w.host = named.host AND w.pool = named.pool
RETURNING w.worker::text
"""

DRAIN_ALL: Final[LiteralString] = """
UPDATE graphwright.workers SET draining = true RETURNING worker::text
"""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker process. ``pool`` is the process that keeps it, ``runs`` how many it holds."""

    worker: str
    host: str
    pid: int
    pool: int
    since: datetime
    seen: datetime
    """When it last said that it lives."""
    runs: int
    idle: bool
    draining: bool

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; times are RFC 3339, in UTC."""
        times = {"since": _text(self.since), "seen": _text(self.seen)}
        return {**asdict(self), **times}


def workers(connection: Connection) -> list[WorkerState]:
    """All that are known, those that died within the lease time too."""
    return [WorkerState(**row) for row in connection.execute(LIST)]


def drain(connection: Connection, worker: str) -> Sequence[str]:
    """Ask a worker and its pool to end; the ids of those asked, none if there is no such worker.

    They notice with their next heartbeat.
    """
    try:
        named = UUID(worker)
    except ValueError:
        return ()
    return [row["worker"] for row in connection.execute(DRAIN, (named,))]


def drain_all(connection: Connection) -> Sequence[str]:
    """:func:`drain` for every worker."""
    return [row["worker"] for row in connection.execute(DRAIN_ALL)]


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds")
