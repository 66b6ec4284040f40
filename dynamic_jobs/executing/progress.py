"""What a run had done before this process got it, read from what is committed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import orjson

from dynamic_jobs.executing.outputs import OutputStore, read_outputs
from foundation.database import Connection
from foundation.ids import NodeId, RunId, TenantId

STARTS: Final[LiteralString] = """
SELECT l.step_key, l.dagster_event_type AS kind, l.timestamp,
    CASE
        WHEN l.dagster_event_type IN ('STEP_UP_FOR_RETRY', 'STEP_FAILURE') THEN l.event
    END AS event
FROM event_logs l
WHERE l.run_id = %s AND l.dagster_event_type IN (
    'STEP_START', 'STEP_RESTARTED', 'STEP_UP_FOR_RETRY', 'STEP_FAILURE', 'STEP_SKIPPED'
)
ORDER BY l.id
"""


# Whose last event is a start.
IN_FLIGHT: Final[LiteralString] = """
SELECT l.step_key FROM event_logs l
WHERE l.run_id = %s AND l.step_key IS NOT NULL AND l.dagster_event_type IN (
    'STEP_START', 'STEP_RESTARTED', 'STEP_UP_FOR_RETRY', 'STEP_FAILURE', 'STEP_SKIPPED',
    'STEP_SUCCESS'
)
GROUP BY l.step_key
HAVING (array_agg(l.dagster_event_type ORDER BY l.id DESC))[1] IN ('STEP_START', 'STEP_RESTARTED')
ORDER BY l.step_key
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """A node that had started and not ended.

    ``attempt`` started at ``started_at``; where ``due`` is set, it is still to come, at that time.
    """

    attempt: int
    started_at: datetime
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """``outputs`` of the nodes that had succeeded, and the nodes that had begun.

    ``waited`` says that all of the latter had but waited, when the run left its worker: they go on
    where they were. After a crash they start again.
    """

    outputs: dict[NodeId, Any] = field(default_factory=dict[NodeId, Any])
    begun: Mapping[NodeId, Begun] = field(default_factory=dict[NodeId, Begun])
    failed: Mapping[NodeId, str] = field(default_factory=dict[NodeId, str])
    """The last failures, each as its event in Dagster's log."""
    skipped: frozenset[NodeId] = frozenset()
    waited: bool = False


def nodes_in_flight(connection: Connection, run_id: RunId) -> list[NodeId]:
    """The nodes that had started and not ended, by what is committed."""
    return [NodeId(row["step_key"]) for row in connection.execute(IN_FLIGHT, (run_id,))]


def read_progress(
    connection: Connection,
    store: OutputStore,
    tenant: TenantId,
    run_id: RunId,
    nodes: Collection[NodeId],
    *,
    waited: bool = False,
) -> Progress:
    """What is committed of the run, for those of its nodes that are named.

    Raises what :func:`read_outputs` raises.
    """
    outputs = read_outputs(connection, store, tenant, run_id, nodes)
    begun: dict[NodeId, Begun] = {}
    failed: dict[NodeId, str] = {}
    skipped: set[NodeId] = set()
    for row in connection.execute(STARTS, (run_id,)):
        node = NodeId(row["step_key"])
        if row["kind"] == "STEP_FAILURE":
            failed[node] = row["event"]
        elif row["kind"] == "STEP_SKIPPED":
            skipped.add(node)
        elif node not in outputs:
            begun[node] = _after(begun.get(node), row)
    return Progress(outputs, begun, failed, frozenset(skipped), waited)


def _after(begun: Begun | None, row: Mapping[str, Any]) -> Begun:
    at: datetime = row["timestamp"].replace(tzinfo=UTC)
    if row["kind"] == "STEP_UP_FOR_RETRY":
        seconds = orjson.loads(row["event"])["dagster_event"]["event_specific_data"][
            "seconds_to_wait"
        ]
        attempt = begun.attempt if begun else 1
        due = datetime.fromtimestamp(at.timestamp() + (seconds or 0), UTC)
        return Begun(attempt + 1, due, due)
    if begun is None:
        return Begun(1, at)
    if begun.due is not None:
        return Begun(begun.attempt, at)
    return begun  # started again after a crash: the same attempt
