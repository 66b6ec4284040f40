"""A run that is being executed in this process, and how others in the process reach it."""

from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final, Literal, LiteralString, TypeAlias

from foundation.database import Connection
from foundation.errors import NotFound
from foundation.ids import NodeId, RunId, TenantId
from graph_defs.json_values import JsonObject

Interrupt: TypeAlias = Literal["cancel", "hand_back"]
"""Why a run is stopped: its owner asked, or this worker is going away."""

READ: Final[LiteralString] = """
SELECT status, params, trigger, parent_run_id::text, created_at FROM graphwright.runs
WHERE tenant = %s AND run_id = %s
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """A node's task has ended; its future holds the result."""

    node: NodeId


@dataclass(slots=True)
class ActiveRun:
    """What a run was started with, and the inbox of the thread that executes it."""

    tenant: TenantId
    run_id: RunId
    status: str
    """When it was claimed."""
    params: JsonObject
    trigger: JsonObject
    parent_run_id: RunId | None
    created_at: str
    inbox: SimpleQueue[Finished | Interrupt] = field(
        default_factory=SimpleQueue["Finished | Interrupt"]
    )
    interrupt: Interrupt | None = None


def read_active(connection: Connection, tenant: TenantId, run_id: RunId) -> ActiveRun:
    """Load what a run was started with. Raises :class:`NotFound`."""
    row = connection.execute(READ, (tenant, run_id)).fetchone()
    if row is None:
        raise NotFound("there is no such run", run_id=run_id)
    parent = row["parent_run_id"]
    return ActiveRun(
        tenant=tenant,
        run_id=run_id,
        status=row["status"],
        params=row["params"],
        trigger=row["trigger"],
        parent_run_id=RunId(parent) if parent else None,
        created_at=row["created_at"].isoformat(),
    )
