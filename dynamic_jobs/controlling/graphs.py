"""Pausing and resuming a graph: its runs stay queued. Those that have started go on."""

from typing import Final, LiteralString

from dynamic_jobs.queueing.holding import hold, release
from foundation.database import Connection
from foundation.ids import GraphId, TenantId

SET_PAUSED: Final[LiteralString] = """
UPDATE graphwright.graphs SET paused = %(paused)s
WHERE tenant = %(tenant)s AND graph_id = %(graph_id)s
"""


def pause_graph(connection: Connection, tenant: TenantId, graph_id: GraphId) -> None:
    """Start no run of the graph any more: those that are queued, and new ones, are held.

    A run that is triggered at the very moment may still start.
    """
    _set(connection, tenant, graph_id, paused=True)
    hold(connection, tenant, graph_id)


def resume_graph(connection: Connection, tenant: TenantId, graph_id: GraphId) -> None:
    """Let the graph's runs start again."""
    # Committed first: a run that was made before this is found below, one made later is not held.
    _set(connection, tenant, graph_id, paused=False)
    release(connection, tenant, graph_id)


def _set(connection: Connection, tenant: TenantId, graph_id: GraphId, *, paused: bool) -> None:
    connection.execute(SET_PAUSED, {"tenant": tenant, "graph_id": graph_id, "paused": paused})
