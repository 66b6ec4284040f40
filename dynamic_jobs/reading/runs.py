"""Runs as their tenants see them: lists, one run with the state of each node, node outputs.

The row in ``graphwright.runs`` says how the run stands; how its nodes stand is folded from
Dagster's event log, which is the only record of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, LiteralString, TypeAlias, get_args

from dynamic_jobs.reading.event_log import run_not_found
from dynamic_jobs.reading.events import step_error, waits
from foundation.database import AsyncPool
from foundation.errors import NotFound
from foundation.ids import GraphId, NodeId, RunId, TenantId
from graph_defs.names import is_node_name

RunStatus: TypeAlias = Literal[
    "queued", "running", "waiting", "paused", "cancelling", "succeeded", "failed", "cancelled"
]
NodeStatus: TypeAlias = Literal[
    "pending",
    "running",
    "retrying",
    "waiting",
    "succeeded",
    "failed",
    "skipped",
    "cancelled",
]
RUN_STATUSES: Final[frozenset[RunStatus]] = frozenset(get_args(RunStatus))

_SUMMARY: Final[LiteralString] = """
SELECT
    r.run_id::text, g.name AS graph, r.graph_id::text, v.version, r.status, r.trigger, r.author,
    r.parent_run_id::text, r.created_at, r.started_at, r.ended_at
"""

_FROM: Final[LiteralString] = """
FROM graphwright.runs r
JOIN graphwright.graphs g ON g.tenant = r.tenant AND g.graph_id = r.graph_id
JOIN graphwright.graph_versions v
    ON v.tenant = r.tenant AND v.graph_version_id = r.graph_version_id
WHERE r.tenant = %(tenant)s
"""

# Filters are spliced in, never `filter IS NULL OR …`: each combination gets a plan of its own.
LIST: Final[LiteralString] = _SUMMARY + ", r.sort_id::text" + _FROM
LIST_OF_GRAPH: Final[LiteralString] = "AND r.graph_id = %(graph_id)s\n"
LIST_BY_STATUS: Final[LiteralString] = "AND r.status = %(status)s\n"
LIST_BEFORE: Final[LiteralString] = "AND r.sort_id < %(before)s::uuid\n"
LIST_NEWEST: Final[LiteralString] = "ORDER BY r.sort_id DESC LIMIT %(limit)s"

# Of the document, which may have megabytes, only the names of its nodes are wanted.
GET: Final[LiteralString] = (
    _SUMMARY
    + """,
    r.params, r.priority, r.not_before, r.live, r.outputs, r.error,
    ARRAY(SELECT json_object_keys(v.document::json -> 'nodes')) AS nodes
"""
    + _FROM
    + "AND r.run_id = %(run_id)s"
)

NODE_EVENTS: Final[LiteralString] = """
SELECT
    l.step_key, l.dagster_event_type, l.timestamp AT TIME ZONE 'UTC' AS at,
    CASE
        WHEN l.dagster_event_type IN ('STEP_FAILURE', 'STEP_UP_FOR_RETRY', 'ENGINE_EVENT')
            THEN l.event
    END AS event
FROM graphwright.runs r
JOIN event_logs l ON l.run_id = r.run_id::text
WHERE r.tenant = %(tenant)s AND r.run_id = %(run_id)s AND l.dagster_event_type = ANY(%(types)s)
ORDER BY l.id
"""

OUTPUT: Final[LiteralString] = """
SELECT value FROM graphwright.node_outputs
WHERE tenant = %(tenant)s AND run_id = %(run_id)s AND node = %(node)s
"""


@dataclass(frozen=True, slots=True)
class NodeState:
    """How one node of a run stands. ``attempt`` is 0 before the first, then counts from 1."""

    status: NodeStatus = "pending"
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run as lists show it. ``graph`` is the graph's name; times are in UTC."""

    run_id: RunId
    graph: str
    graph_id: GraphId
    version: int
    status: RunStatus
    trigger: Mapping[str, Any]
    author: str
    parent_run_id: RunId | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunSummary):
    """A run in full. ``nodes`` has every node of the graph's version, in the document's order."""

    params: Mapping[str, Any]
    priority: int
    not_before: datetime | None
    live: bool
    outputs: Any
    error: Mapping[str, Any] | None
    nodes: Mapping[NodeId, NodeState]


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first; ``next_before`` asks for the following ones, None after the last."""

    items: Sequence[RunSummary]
    next_before: str | None


class RunStore:
    """Reads runs. Every question names the tenant that asks and is answered from its rows alone."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool

    async def get(self, tenant: TenantId, run_id: RunId) -> Run:
        """One run. Raises :class:`NotFound` for an unknown run and for another tenant's."""
        parameters = {"tenant": tenant, "run_id": run_id, "types": list(_NODE_STATUSES)}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(GET, parameters)).fetchone()
            if row is None:
                raise run_not_found(run_id)
            # Read after the row, so that the nodes are never behind the run.
            events = await (await connection.execute(NODE_EVENTS, parameters)).fetchall()
        nodes = fold_nodes(row.pop("nodes"), events, row["status"])
        return Run(**_in_utc(row), nodes=nodes)

    async def list(
        self,
        tenant: TenantId,
        *,
        graph_id: GraphId | None = None,
        status: RunStatus | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> RunPage:
        """At most ``limit`` runs, newest first, of one graph and of one status if these are given.

        ``before`` continues after a page.
        """
        query = LIST
        if graph_id is not None:
            query += LIST_OF_GRAPH
        if status is not None:
            query += LIST_BY_STATUS
        if before is not None:
            query += LIST_BEFORE
        parameters = {
            "tenant": tenant,
            "graph_id": graph_id,
            "status": status,
            "before": before,
            "limit": limit + 1,
        }
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query + LIST_NEWEST, parameters)
            rows = await cursor.fetchall()
        sort_ids = [row.pop("sort_id") for row in rows[:limit]]
        items = [RunSummary(**_in_utc(row)) for row in rows[:limit]]
        return RunPage(items, sort_ids[-1] if len(rows) > limit else None)

    async def output(self, tenant: TenantId, run_id: RunId, node: NodeId) -> str:
        """A node's output as JSON text, number for number as the node made it.

        Raises :class:`NotFound` when there is no such run, or the node has no output yet.
        """
        parameters = {"tenant": tenant, "run_id": run_id, "node": node}
        row = None
        if is_node_name(node):
            async with self._pool.connection() as connection:
                row = await (await connection.execute(OUTPUT, parameters)).fetchone()
        if row is None:
            raise NotFound(
                f"there is no output of node {node!r} in this run",
                hint="GET /api/v1/runs/RUN_ID shows which nodes have succeeded",
                run_id=run_id,
                node=node,
            )
        return row["value"]


_NODE_STATUSES: Final[dict[str, NodeStatus]] = {
    "STEP_START": "running",
    "STEP_RESTARTED": "running",
    "STEP_UP_FOR_RETRY": "retrying",
    "STEP_SUCCESS": "succeeded",
    "STEP_FAILURE": "failed",
    "STEP_SKIPPED": "skipped",
    "ENGINE_EVENT": "waiting",
}


def fold_nodes(
    nodes: Iterable[NodeId], events: Iterable[Mapping[str, Any]], run: RunStatus
) -> dict[NodeId, NodeState]:
    """The state of each node after these events, given in order as rows of ``NODE_EVENTS``.

    In a run that has ended nothing is under way: a node that was is ``cancelled``; one that never
    started is ``cancelled`` with its run or, where another node failed, ``skipped``.
    """
    states = dict.fromkeys(nodes, NodeState())
    for event in events:
        node = NodeId(event["step_key"])
        if event["dagster_event_type"] == "ENGINE_EVENT" and not waits(event["event"]):
            continue
        if node in states:
            states[node] = _after(states[node], event)
    if run in ("failed", "cancelled"):
        idle: NodeStatus = "cancelled" if run == "cancelled" else "skipped"
        for node, state in states.items():
            if state.status == "pending":
                states[node] = NodeState(idle)
            elif state.status in ("running", "retrying", "waiting"):
                states[node] = NodeState("cancelled", state.attempt, state.started_at)
    return states


def _after(state: NodeState, event: Mapping[str, Any]) -> NodeState:
    status = _NODE_STATUSES[event["dagster_event_type"]]
    at: datetime = event["at"].astimezone(UTC)
    match status:
        case "running":
            restarted = event["dagster_event_type"] == "STEP_RESTARTED"
            return NodeState(status, max(state.attempt, 1) + restarted, at)
        case "waiting":
            return NodeState(status, state.attempt, state.started_at)
        case "skipped":
            return NodeState(status, ended_at=at)
        case "succeeded":
            return NodeState(status, state.attempt, state.started_at, at)
        case _:
            error = step_error(event["event"])
            if error["code"] == "cancelled":
                status = "cancelled"
            ended_at = None if status == "retrying" else at
            return NodeState(status, state.attempt, state.started_at, ended_at, error)


def _in_utc(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in row.items()
    }
