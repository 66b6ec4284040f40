"""Runs as their tenants see them: lists, one run with the state of each node, node outputs.

The row in ``graphwright.runs`` says how the run stands; how its nodes stand is folded from
Dagster's event log, which is the only record of it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, LiteralString, TypeAlias, get_args

from dynamic_jobs.reading.event_log import run_not_found
from dynamic_jobs.reading.events import step_error, waits
from dynamic_jobs.storage.outputs import ObjectRef, Stored
from foundation.errors import NotFound
from foundation.group_reads import GroupReads
from foundation.ids import GraphId, NodeId, RunId, TenantId
from foundation.telemetry.tracing import trace_id_of
from foundation.tenant_pool import TenantPool
from graph_defs.names import is_node_name
from graph_defs.store import labels_asked_for

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
    r.parent_run_id::text, r.created_at, r.started_at, r.ended_at, r.error
"""

_NAMES: Final[LiteralString] = """
JOIN graphwright.graphs g ON g.tenant = r.tenant AND g.graph_id = r.graph_id
JOIN graphwright.graph_versions v
    ON v.tenant = r.tenant AND v.graph_version_id = r.graph_version_id
"""

# Filters are spliced in, never `filter IS NULL OR …`: each combination gets a plan of its own. The
# page is cut before the names are looked up, so that no plan can join all runs first; and for each
# status and each graph that is asked for by itself, so that each is the end of an index.
LIST: Final[LiteralString] = f"""{_SUMMARY}, r.sort_id::text
FROM (
    SELECT r.* FROM
"""  # noqa: S608 - made of constants
LIST_STATUSES: Final[LiteralString] = "unnest(%(statuses)s::text[]) AS asked (status),\n"
LIST_LABELLED: Final[LiteralString] = """(
    SELECT l.graph_id FROM graphwright.graph_labels l
    JOIN graphwright.graphs g ON g.tenant = l.tenant AND g.graph_id = l.graph_id
    WHERE l.tenant = %(tenant)s AND l.label = %(label)s AND g.labels @> ALL(%(labels)s)
) AS labelled,
"""
LIST_RUNS: Final[LiteralString] = """LATERAL (
    SELECT * FROM graphwright.runs r WHERE r.tenant = %(tenant)s
"""
LIST_OF_GRAPH: Final[LiteralString] = "AND r.graph_id = %(graph_id)s\n"
LIST_OF_LABELLED: Final[LiteralString] = "AND r.graph_id = labelled.graph_id\n"
LIST_BY_STATUS: Final[LiteralString] = "AND r.status = asked.status\n"
LIST_BY_ERROR: Final[LiteralString] = "AND r.error_code = %(error)s\n"
LIST_BEFORE: Final[LiteralString] = "AND r.sort_id < %(before)s::uuid\n"
_NO_FILTER: Final[LiteralString] = ""
_PAGE: Final[LiteralString] = "ORDER BY r.sort_id DESC LIMIT %(limit)s\n) r\n"
LIST_NEWEST: Final[LiteralString] = _PAGE + _PAGE + _NAMES + "ORDER BY r.sort_id DESC"

STATUS: Final[LiteralString] = (
    "SELECT status, last_event_id FROM graphwright.runs WHERE tenant = %s AND run_id = %s"
)

STATUSES: Final[LiteralString] = """
SELECT r.* FROM unnest(%(run_ids)s::uuid[]) AS asked (run_id), LATERAL (
    SELECT run_id::text, status FROM graphwright.runs
    WHERE tenant = %(tenant)s AND run_id = asked.run_id LIMIT 1
) r
"""

# Of the document, which may have megabytes, only the names of its nodes are wanted. All of a run is
# of one moment, so its nodes are never behind it. Of a run that repeats another, `kept` is what it
# has not run again. Each row is looked up by its whole key, and no index of event types is taken:
# while a table has no statistics, `= ANY` would have all runs of the tenant read, or all events.
GET: Final[LiteralString] = f"""{_SUMMARY},
    r.params, r.priority, r.not_before, r.live, r.outputs, r.traceparent,
    r.last_event_id,
    ARRAY(SELECT json_object_keys(v.document::json -> 'nodes')) AS nodes,
    (
        SELECT json_agg(
            json_build_array(
                l.step_key, l.dagster_event_type, l.timestamp,
                CASE
                    WHEN l.dagster_event_type IN (
                        'STEP_FAILURE', 'STEP_UP_FOR_RETRY', 'ENGINE_EVENT'
                    )
                        THEN l.event
                END
            ) ORDER BY l.id
        )
        FROM event_logs l
        WHERE
            l.run_id = r.run_id::text
            AND array_position(%(types)s::text[], l.dagster_event_type::text) IS NOT NULL
    ) AS events,
    CASE WHEN r.parent_run_id IS NOT NULL THEN ARRAY(
        SELECT o.node FROM graphwright.node_outputs o
        WHERE o.tenant = r.tenant AND o.run_id = r.run_id
    ) END AS kept
FROM unnest(%(run_ids)s::uuid[]) AS asked (run_id), LATERAL (
    SELECT * FROM graphwright.runs
    WHERE tenant = %(tenant)s AND run_id = asked.run_id LIMIT 1
) r, LATERAL (
    SELECT name FROM graphwright.graphs
    WHERE tenant = %(tenant)s AND graph_id = r.graph_id LIMIT 1
) g, LATERAL (
    SELECT version, document FROM graphwright.graph_versions
    WHERE tenant = %(tenant)s AND graph_version_id = r.graph_version_id LIMIT 1
) v
"""  # noqa: S608 - made of constants

OUTPUT: Final[LiteralString] = """
SELECT value, object_key, bytes FROM graphwright.node_outputs
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
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunSummary):
    """A run in full. ``nodes`` has every node of the graph's version, in the document's order."""

    params: Mapping[str, Any]
    priority: int
    not_before: datetime | None
    live: bool
    trace_id: str
    outputs: Any
    nodes: Mapping[NodeId, NodeState]
    last_event_id: int
    """When it changes, so may all else."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first; ``next_before`` asks for the following ones, None after the last."""

    items: Sequence[RunSummary]
    next_before: str | None


class RunStore:
    """Reads runs. Every question names the tenant that asks and is answered from its rows alone."""

    def __init__(self, pool: TenantPool, by_key: TenantPool | None = None) -> None:
        """``by_key`` is where single runs are read, by default ``pool`` too."""
        self._pool = pool
        self._pool_by_key = by_key or pool
        self._rows = GroupReads(self._read)

    async def get(self, tenant: TenantId, run_id: RunId) -> Run:
        """One run. Raises :class:`NotFound` for an unknown run and for another tenant's."""
        row = await self._rows.get(tenant, run_id)
        if row is None:
            raise run_not_found(run_id)
        members = _in_utc(row)
        trace_id = trace_id_of(run_id, members.pop("traceparent"))
        nodes = fold_nodes(
            members.pop("nodes"),
            members.pop("events") or (),
            row["status"],
            members.pop("kept") or (),
        )
        return Run(**members, trace_id=trace_id, nodes=nodes)

    async def _read(
        self, tenant: TenantId, run_ids: Sequence[RunId]
    ) -> Mapping[RunId, dict[str, Any]]:
        asked = {"tenant": tenant, "run_ids": run_ids, "types": list(_NODE_STATUSES)}
        async with self._pool_by_key.connection(tenant) as connection:
            rows = await (await connection.execute(GET, asked)).fetchall()
        return {RunId(row["run_id"]): row for row in rows}

    async def status(self, tenant: TenantId, run_id: RunId) -> RunStatus:
        """How a run stands. Raises :class:`NotFound` as :meth:`get` does."""
        status, _ = await self.progress(tenant, run_id)
        return status

    async def statuses(
        self, tenant: TenantId, run_ids: Collection[RunId]
    ) -> dict[RunId, RunStatus]:
        """How each of these runs stands; those that are gone, or another tenant's, are left out."""
        if not run_ids:
            return {}
        asked = {"tenant": tenant, "run_ids": list(run_ids)}
        async with self._pool_by_key.connection(tenant) as connection:
            rows = await (await connection.execute(STATUSES, asked)).fetchall()
        return {RunId(row["run_id"]): row["status"] for row in rows}

    async def progress(self, tenant: TenantId, run_id: RunId) -> tuple[RunStatus, int]:
        """A run's status and its ``last_event_id``. Raises :class:`NotFound` as :meth:`get`."""
        async with self._pool_by_key.connection(tenant) as connection:
            row = await (await connection.execute(STATUS, (tenant, run_id))).fetchone()
        if row is None:
            raise run_not_found(run_id)
        return row["status"], row["last_event_id"]

    async def list(
        self,
        tenant: TenantId,
        *,
        graph_id: GraphId | None = None,
        statuses: Collection[RunStatus] = (),
        labels: Collection[tuple[str, str]] = (),
        error: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> RunPage:
        """At most ``limit`` runs, newest first: of one graph, of one of some statuses, of graphs
        with all of some labels, and failed by an error of one code, if these are given.

        ``before`` continues after a page.
        """
        parameters: dict[str, Any] = {"tenant": tenant, "limit": limit + 1}
        query, filters = LIST, _NO_FILTER
        if statuses:
            query, filters = query + LIST_STATUSES, filters + LIST_BY_STATUS
            parameters["statuses"] = list(dict.fromkeys(statuses))
        if labels:
            query, filters = query + LIST_LABELLED, filters + LIST_OF_LABELLED
            parameters |= labels_asked_for(labels)
        if graph_id is not None:
            filters += LIST_OF_GRAPH
            parameters["graph_id"] = graph_id
        if error is not None:
            filters += LIST_BY_ERROR
            parameters["error"] = error
        if before is not None:
            filters += LIST_BEFORE
            parameters["before"] = before
        query += LIST_RUNS + filters + LIST_NEWEST
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(query, parameters)).fetchall()
        sort_ids = [row.pop("sort_id") for row in rows[:limit]]
        items = [RunSummary(**_in_utc(row)) for row in rows[:limit]]
        return RunPage(items, sort_ids[-1] if len(rows) > limit else None)

    async def output(self, tenant: TenantId, run_id: RunId, node: NodeId) -> Stored:
        """A node's output as JSON text, number for number as the node made it, or where that is.

        Raises :class:`NotFound` when there is no such run, or the node has no output yet.
        """
        parameters = {"tenant": tenant, "run_id": run_id, "node": node}
        row = None
        if is_node_name(node):
            async with self._pool_by_key.connection(tenant) as connection:
                row = await (await connection.execute(OUTPUT, parameters)).fetchone()
        if row is None:
            raise NotFound(
                f"there is no output of node {node!r} in this run",
                hint="GET /api/v1/runs/RUN_ID shows which nodes have succeeded",
                run_id=run_id,
                node=node,
            )
        if row["object_key"] is not None:
            return ObjectRef(row["object_key"], row["bytes"])
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


_NodeEvent: TypeAlias = tuple[str, str, str, str | None]
"""An element of ``events`` of ``GET``: step, type, time of UTC without a zone, serialized event."""


def fold_nodes(
    nodes: Iterable[NodeId],
    events: Iterable[_NodeEvent],
    run: RunStatus,
    kept: Collection[NodeId] = (),
) -> dict[NodeId, NodeState]:
    """The state of each node after these events, given in order.

    In a run that has ended nothing is under way: a node that was is ``cancelled``; one that never
    started is ``cancelled`` with its run or, where another node failed, ``skipped``. Those that
    are ``kept`` have succeeded in the run that this one repeats, unless they run again.
    """
    states = {node: NodeState("succeeded") if node in kept else NodeState() for node in nodes}
    for step, kind, at, event in events:
        node = NodeId(step)
        if node not in states or (kind == "ENGINE_EVENT" and not waits(event or "")):
            continue
        moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
        states[node] = _after(states[node], kind, moment, event or "")
    if run in ("failed", "cancelled"):
        idle: NodeStatus = "cancelled" if run == "cancelled" else "skipped"
        for node, state in states.items():
            if state.status == "pending":
                states[node] = NodeState(idle)
            elif state.status in ("running", "retrying", "waiting"):
                states[node] = NodeState("cancelled", state.attempt, state.started_at)
    return states


def _after(state: NodeState, kind: str, at: datetime, event: str) -> NodeState:
    status = _NODE_STATUSES[kind]
    match status:
        case "running":
            restarted = kind == "STEP_RESTARTED"
            return NodeState(status, max(state.attempt, 1) + restarted, at)
        case "waiting":
            return NodeState(status, state.attempt, state.started_at)
        case "skipped":
            return NodeState(status, ended_at=at)
        case "succeeded":
            return NodeState(status, state.attempt, state.started_at, at)
        case _:
            error = step_error(event)
            if error["code"] == "cancelled":
                status = "cancelled"
            ended_at = None if status == "retrying" else at
            return NodeState(status, state.attempt, state.started_at, ended_at, error)


def _in_utc(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in row.items()
    }
