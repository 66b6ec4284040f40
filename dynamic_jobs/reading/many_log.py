"""Reading the events of all runs of a tenant from PostgreSQL, by transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from psycopg.rows import DictRow

from dynamic_jobs.reading.events import (
    PUBLISHED_DAGSTER_TYPES,
    TERMINAL_DAGSTER_TYPES,
    RunEvent,
    to_event,
)
from foundation.database import AsyncConnection
from foundation.ids import GraphId, TenantId

# One statement, so one snapshot. A row's system column `xmin` is the transaction that wrote it, in
# 32 bits; as all that are visible are below the snapshot's `xmax`, that tells the others.
READ: Final[LiteralString] = """
WITH snapshot AS MATERIALIZED (
    SELECT GREATEST(pg_snapshot_xmin(s)::text::bigint, %(known)s::bigint) AS settled,
        pg_snapshot_xmax(s)::text::bigint AS next
    FROM pg_current_snapshot() s
)
SELECT s.settled, s.next, COALESCE((
        SELECT r.last_event_id FROM graphwright.runs r
        WHERE r.tenant = %(tenant)s ORDER BY r.last_event_id DESC LIMIT 1
    ), 0) AS newest,
    e.*
FROM snapshot s LEFT JOIN LATERAL (
    SELECT r.run_id::text, r.graph_id::text, l.id, l.event, l.dagster_event_type, l.transaction,
        CASE WHEN l.dagster_event_type = ANY(%(terminal)s) THEN r.outputs END AS outputs,
        CASE WHEN l.dagster_event_type = ANY(%(terminal)s) THEN r.error END AS error
    FROM graphwright.runs r CROSS JOIN LATERAL (
        SELECT l.id, l.event, l.dagster_event_type,
            s.next - ((s.next - l.xmin::text::bigint) & 4294967295) AS transaction
        FROM event_logs l
        WHERE l.run_id = r.run_id::text AND l.id > %(after)s
          AND l.id <= LEAST(r.last_event_id, %(through)s::bigint)
          AND (
            l.dagster_event_type = ANY(%(published)s)
            OR (l.dagster_event_type IS NULL AND l.step_key IS NOT NULL)
          )
          AND s.next - ((s.next - l.xmin::text::bigint) & 4294967295) >= %(done)s
          AND s.next - ((s.next - l.xmin::text::bigint) & 4294967295)
            < LEAST(s.settled, %(upto)s::bigint)
        ORDER BY l.id
        LIMIT %(limit)s
    ) l
    WHERE r.tenant = %(tenant)s AND r.last_event_id > %(after)s
    ORDER BY l.id
    LIMIT %(limit)s
) e ON true
ORDER BY e.id
"""

# Snapshots also name transactions of the server's other databases, which write none of our events.
# Ours are those of sessions: who has a number below the snapshot's `xmax` and is not among them has
# ended by the time that they are looked at, which is after the snapshot was taken. Numbers have 32
# bits there. Of sessions that hide theirs nothing is known.
SETTLED: Final[LiteralString] = """
SELECT CASE WHEN bool_or(a.query = '<insufficient privilege>') THEN 0
    ELSE s.next - COALESCE(max(a.behind) FILTER (WHERE a.behind < 2147483648), 0) END AS settled
FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) s
LEFT JOIN LATERAL (
    SELECT query, (s.next - backend_xid::text::bigint) & 4294967295 AS behind
    FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
) a ON true
GROUP BY s.next
"""


LABELS: Final[LiteralString] = """
SELECT graph_id::text, labels FROM graphwright.graphs
WHERE tenant = %s AND graph_id = ANY(%s::uuid[])
"""


_WINDOW_FACTOR: Final = 2
"""Of ids to look at, for each event that is wanted; those of other tenants are among them."""

NO_EVENTS: Final = 2**63 - 1
"""Above all ids: read after it to learn no more than which transactions are settled."""


@dataclass(frozen=True, slots=True)
class Found:
    """An event, the graph of its run with its labels, as ``name:value``, and the transaction that
    wrote it.
    """

    event: RunEvent
    graph_id: GraphId
    labels: frozenset[str]
    transaction: int


@dataclass(frozen=True, slots=True)
class ManyPage:
    """Events in the order of their ids.

    Transactions below ``settled`` have ended, and those from ``next`` on had not begun. ``newest``
    is the newest event of the tenant, of whichever transaction. ``last_id`` is where the next page
    starts, and ``full`` says that there is one.
    """

    found: Sequence[Found]
    settled: int
    next: int
    newest: int
    last_id: int
    full: bool


async def read_settled(connection: AsyncConnection) -> int:
    """The transaction below which all of this database have ended, if that can be known; else 0.

    For a session that sees those of others. Read events by a later statement.
    """
    row = await (await connection.execute(SETTLED)).fetchone()
    assert row is not None
    return row["settled"]


async def read_many(
    connection: AsyncConnection,
    tenant: TenantId,
    done: int,
    upto: int | None,
    after: int,
    limit: int,
    *,
    known: int = 0,
) -> ManyPage:
    """At most ``limit`` events with ids above ``after``, of transactions from ``done`` to below
    ``upto``, which by default is as far as transactions are settled. Those below ``known`` are,
    whatever the statement's own snapshot says.

    They are looked for in windows of ids, each twice as large as the one before: to sort all that
    are later, for each page, would take a client that is far behind forever. What the first
    statement sees as settled holds for all.
    """
    bounds = (done, upto, known)
    size = _WINDOW_FACTOR * limit
    first, rows = await _window(connection, tenant, bounds, after, size, limit)
    settled = first["settled"] if upto is None else min(upto, first["settled"])
    start = after + size
    while len(rows) < limit and start < first["newest"]:
        size *= 2
        bounds = (done, settled, settled)
        _, more = await _window(connection, tenant, bounds, start, size, limit - len(rows))
        rows += more
        start += size
    labels: dict[str, frozenset[str]] = {}
    if graphs := list({row["graph_id"] for row in rows}):
        for row in await (await connection.execute(LABELS, (tenant, graphs))).fetchall():
            pairs = row["labels"].items()
            labels[row["graph_id"]] = frozenset(f"{name}:{value}" for name, value in pairs)
    found: list[Found] = []
    for row in rows:
        graph_id = GraphId(row["graph_id"])
        event = to_event(
            row["run_id"],
            row["id"],
            row["event"],
            row["dagster_event_type"],
            outputs=row["outputs"],
            error=row["error"],
        )
        if event is not None:
            own = labels.get(graph_id, frozenset())
            found.append(Found(event, graph_id, own, row["transaction"]))
    return ManyPage(
        found,
        settled=first["settled"],
        next=first["next"],
        newest=first["newest"],
        last_id=rows[-1]["id"] if rows else after,
        full=len(rows) == limit,
    )


async def _window(
    connection: AsyncConnection,
    tenant: TenantId,
    bounds: tuple[int, int | None, int],
    after: int,
    size: int,
    limit: int,
) -> tuple[DictRow, list[DictRow]]:
    """What there is to know of transactions, and the rows of events in ``size`` ids."""
    done, upto, known = bounds
    parameters = {
        "tenant": tenant,
        "done": done,
        "upto": upto,
        "known": known,
        "after": after,
        "through": min(after + size, NO_EVENTS),
        "limit": limit,
        "published": list(PUBLISHED_DAGSTER_TYPES),
        "terminal": list(TERMINAL_DAGSTER_TYPES),
    }
    rows = await (await connection.execute(READ, parameters)).fetchall()
    return rows[0], [row for row in rows if row["id"] is not None]
