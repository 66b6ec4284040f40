"""Running a run again: all of it, what had not succeeded, or what follows on a node.

The new run is of the same version of the graph and has the same trigger. What does not run again
keeps its outputs; the worker that claims the run copies their rows (``adopt_outputs``). Dagster
knows the new run as a re-execution of its parent, as if it had been asked for in its UI.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString, cast

from dagster import DagsterRun, deserialize_value

from dynamic_jobs.creating.launching import RunCreator, Started
from dynamic_jobs.creating.trigger import Parent, Trigger
from dynamic_jobs.executing.outputs import ADOPT
from dynamic_jobs.reading.event_log import run_not_found
from dynamic_jobs.storage.records import TERMINAL_STATUSES
from foundation.database import Connection
from foundation.errors import Conflict, Fault, Invalid
from foundation.ids import GraphId, NodeId, RunId, TenantId
from foundation.tenant_pool import TenantPool
from graph_defs.json_values import JsonObject
from graph_defs.store import GraphStore
from graph_defs.suggestions import Suggester

PARENT: Final[LiteralString] = """
SELECT r.status, r.graph_id::text, v.version, r.params, r.trigger, r.priority, r.live, (
    SELECT t.value FROM run_tags t
    WHERE t.run_id = r.run_id::text AND t.key = 'dagster/root_run_id' LIMIT 1
) AS root_run_id
FROM graphwright.runs r
JOIN graphwright.graph_versions v
    ON v.tenant = r.tenant AND v.graph_version_id = r.graph_version_id
WHERE r.tenant = %(tenant)s AND r.run_id = %(run_id)s
"""

SUCCEEDED: Final[LiteralString] = """
SELECT node FROM graphwright.node_outputs WHERE tenant = %(tenant)s AND run_id = %(run_id)s
"""

# One that ended before it began, on the queue for example, has not taken over yet what it keeps.
UNBEGUN: Final[LiteralString] = """
SELECT r.parent_run_id::text, d.run_body
FROM graphwright.runs r JOIN runs d ON d.run_id = %(run_id)s::text
WHERE r.tenant = %(tenant)s AND r.run_id = %(run_id)s::uuid AND r.started_at IS NULL
    AND r.parent_run_id IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Again:
    """What to run again, and how."""

    begin: str
    """``start``, ``failed``, or a node."""
    author: str
    params: JsonObject | None = None
    """Instead of the parent's; None for the same."""
    idempotency_key: str | None = None


async def rerun(
    tenants: TenantPool, creator: RunCreator, tenant: TenantId, run_id: RunId, again: Again
) -> Started:
    """Queue a run that repeats this one.

    Raises what :meth:`RunCreator.start` raises, and:
        NotFound: this tenant has no such run.
        Conflict: it has not ended, or all of it had succeeded.
        Invalid: ``again`` names a node that the graph does not have.
    """
    asked = {"tenant": tenant, "run_id": run_id}
    async with tenants.connection(tenant) as connection:
        parent = await (await connection.execute(PARENT, asked)).fetchone()
    if parent is None:
        raise run_not_found(run_id)
    if parent["status"] not in TERMINAL_STATUSES:
        raise Conflict(
            f"the run has not ended: {parent['status']}",
            hint="Cancel it first, or wait for its end.",
            run_id=run_id,
        )
    version = await GraphStore(tenants).version(
        tenant, GraphId(parent["graph_id"]), parent["version"]
    )
    needs = needs_of(version.document)
    async with tenants.connection(tenant) as connection:
        unbegun = await (await connection.execute(UNBEGUN, asked)).fetchone()
        if unbegun is not None:
            await connection.execute(ADOPT, {**asked, **_kept(unbegun, needs)})
        done = await (await connection.execute(SUCCEEDED, asked)).fetchall()
    steps = _steps(run_id, parent["status"], needs, [row["node"] for row in done], again.begin)
    repeated = Parent(
        run_id,
        RunId(parent["root_run_id"] or run_id),
        steps,
        from_failure=again.begin == "failed",
    )
    trigger = Trigger(
        parent["params"] if again.params is None else again.params,
        parent["trigger"],
        again.author,
        priority=parent["priority"],
        live=parent["live"],
        idempotency_key=again.idempotency_key,
        parent=repeated,
    )
    return await creator.repeat(version, trigger)


def unfinished(
    connection: Connection, tenant: TenantId, run_id: RunId, document: JsonObject
) -> tuple[NodeId, ...]:
    """The nodes of this document that run again when the run is repeated from its failures."""
    asked, needs = {"tenant": tenant, "run_id": run_id}, needs_of(document)
    unbegun = connection.execute(UNBEGUN, asked).fetchone()
    if unbegun is not None:
        connection.execute(ADOPT, {**asked, **_kept(unbegun, needs)})
    rows = connection.execute(SUCCEEDED, asked).fetchall()
    return with_downstream(needs, without=[row["node"] for row in rows])


def _kept(unbegun: Mapping[str, Any], needs: Collection[NodeId]) -> dict[str, Any]:
    """What a run that has not begun keeps of its parent: the values of :data:`ADOPT`."""
    steps = deserialize_value(unbegun["run_body"], DagsterRun).step_keys_to_execute
    kept = [] if steps is None else [node for node in needs if node not in steps]
    return {"parent": unbegun["parent_run_id"], "nodes": kept}


def needs_of(document: JsonObject) -> dict[NodeId, Sequence[NodeId]]:
    """The nodes of a valid document, each with those that it needs."""
    nodes = cast("Mapping[str, Any]", document["nodes"])
    return {NodeId(name): node.get("needs", ()) for name, node in nodes.items()}


def with_downstream(
    needs: Mapping[NodeId, Sequence[NodeId]],
    *,
    without: Collection[NodeId],
    beside: Collection[NodeId] = (),
) -> tuple[NodeId, ...]:
    """All nodes but those ``without``, those ``beside``, and what is downstream of any of them."""
    dependents: dict[NodeId, list[NodeId]] = {node: [] for node in needs}
    for node, needed in needs.items():
        for need in needed:
            dependents[need].append(node)
    chosen = (needs.keys() - set(without)).union(beside)
    front = deque(chosen)
    while front:
        for node in dependents[front.popleft()]:
            if node not in chosen:
                chosen.add(node)
                front.append(node)
    return tuple(node for node in needs if node in chosen)


def _steps(
    run_id: RunId,
    status: str,
    needs: Mapping[NodeId, Sequence[NodeId]],
    done: Collection[NodeId],
    begin: str,
) -> tuple[NodeId, ...] | None:
    if begin == "start":
        return None
    if begin != "failed":
        if begin not in needs:
            raise _unknown(begin, needs)
        return with_downstream(needs, without=done, beside=[NodeId(begin)])
    steps = () if status == "succeeded" else with_downstream(needs, without=done)
    if not steps:
        raise Conflict(
            "every node of the run had succeeded" if status != "succeeded" else "the run succeeded",
            hint="Run it again from `start`, or from a node.",
            run_id=run_id,
        )
    return steps


def _unknown(begin: str, needs: Collection[NodeId]) -> Invalid:
    close = Suggester().did_you_mean(begin, ["start", "failed", *needs])
    hint = close or "Use `start`, `failed`, or a node's id."
    fault = Fault("/from", "unknown_node", f"The graph has no node {begin!r}.", hint)
    return Invalid("The request has faults.", [fault])
