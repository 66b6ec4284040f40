"""Runs whose graph is paused: ``held``, until it is resumed."""

from collections.abc import Callable
from typing import Final, LiteralString

from dynamic_jobs.queueing.admission import LOCK, admit, admit_async
from foundation.database import AsyncConnection, Connection
from foundation.ids import GraphId, TenantId

_AT_ONCE: Final = 100
_NO_GRAPH: Final = GraphId("00000000-0000-0000-0000-000000000000")

# Not those that have been with a worker: they are under way, wherever they are just now.
HOLD: Final[LiteralString] = """
WITH held AS (
    UPDATE graphwright.run_queue SET state = 'held'
    WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s AND NOT admitted
        AND state = ANY('{ready,delayed,blocked,limited}')
    RETURNING run_id
)
DELETE FROM graphwright.run_slots s USING held
WHERE s.tenant = %(tenant)s AND s.run_id = held.run_id
"""

RELEASE: Final[LiteralString] = """
UPDATE graphwright.run_queue SET state = CASE
    WHEN not_before > now() THEN 'delayed'
    WHEN slot IS NOT NULL THEN 'blocked'
    WHEN limited THEN 'limited'
    ELSE 'ready'
END
WHERE state = 'held' AND graph_id = %(graph_id)s
"""

# Hops from graph to graph that has held runs.
HELD: Final[LiteralString] = """
WITH RECURSIVE held (graph_id, tenant, place) AS (
    (SELECT graph_id, tenant, 1 FROM graphwright.run_queue
     WHERE state = 'held' AND graph_id > %(after)s ORDER BY graph_id LIMIT 1)
    UNION ALL
    SELECT n.graph_id, n.tenant, h.place + 1 FROM held h, LATERAL (
        SELECT graph_id, tenant FROM graphwright.run_queue
        WHERE state = 'held' AND graph_id > h.graph_id ORDER BY graph_id LIMIT 1
    ) n WHERE h.place < %(limit)s
)
SELECT h.graph_id::text, h.tenant, EXISTS (
    SELECT FROM graphwright.graphs g
    WHERE g.tenant = h.tenant AND g.graph_id = h.graph_id AND g.paused
) AS paused
FROM held h ORDER BY h.graph_id
"""


def hold(connection: Connection, tenant: TenantId, graph_id: GraphId) -> None:
    """Hold what is queued of a graph and has not started; others get the places it had."""
    values = {"tenants": [tenant], "tenant": tenant, "graph_id": graph_id}
    with connection.transaction():
        connection.execute(LOCK, values)
        connection.execute(HOLD, values)
    admit(connection, [tenant])


def release(connection: Connection, tenant: TenantId, graph_id: GraphId) -> None:
    """Let what is held of a graph wait for what it has to wait for next."""
    connection.execute(RELEASE, {"graph_id": graph_id})
    admit(connection, [tenant])


async def release_missed(
    connection: AsyncConnection,
    after: GraphId | None,
    enough: Callable[[], bool] = lambda: False,
) -> GraphId | None:
    """Release runs that are held though their graph is not paused: they came as it was resumed.

    Looks at some graphs with held runs, from ``after`` on, and releases until it is ``enough``;
    where to go on, None for the beginning.
    """
    values = {"after": after or _NO_GRAPH, "limit": _AT_ONCE}
    found = await (await connection.execute(HELD, values)).fetchall()
    for graph in found:
        if not graph["paused"]:
            await connection.execute(RELEASE, {"graph_id": graph["graph_id"]})
            await admit_async(connection, [graph["tenant"]])
            if enough():
                return GraphId(graph["graph_id"])
    return GraphId(found[-1]["graph_id"]) if len(found) == _AT_ONCE else None
