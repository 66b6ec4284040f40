"""A run that is being executed in this process, and how others in the process reach it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Final, Literal, LiteralString, TypeAlias

from dagster import DagsterRun

from dynamic_jobs.executing.progress import Progress
from foundation.database import Connection
from foundation.errors import NotFound
from foundation.ids import NodeId, RunId, TenantId
from foundation.telemetry.tracing import Span
from graph_defs.json_values import JsonObject

Interrupt: TypeAlias = Literal["cancel", "hand_back", "wait", "pause"]
"""Why a run is stopped: its owner asked, this worker goes away, or all it does is to wait."""

READ: Final[LiteralString] = """
SELECT params, trigger, parent_run_id::text, created_at, started_at FROM graphwright.runs
WHERE tenant = %s AND run_id = %s
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """An attempt of a node has ended; its task holds the result."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Look:
    """Something has changed that the executor may want to see."""


Message: TypeAlias = Finished | Look | Interrupt


class Inbox:
    """What happens outside reaches a run's executor here. Any thread may put.

    With ``wake``, nobody blocks on the inbox: it is called after each message, and the executor
    gives up its thread while the inbox is empty.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._wake = wake

    @property
    def blocks(self) -> bool:
        """Whether the executor may wait for a message in :meth:`get`."""
        return self._wake is None

    def put(self, message: Message) -> None:
        self._messages.put(message)
        if self._wake is not None:
            self._wake()

    def get(self) -> Message:
        """The next message, waited for."""
        return self._messages.get()

    def poll(self) -> Message | None:
        """The next message, if there is one."""
        try:
            return self._messages.get_nowait()
        except Empty:
            return None


@dataclass(slots=True)
class ActiveRun:
    """What a run was started with, and how far it has come."""

    tenant: TenantId
    run_id: RunId
    params: JsonObject
    trigger: JsonObject
    parent_run_id: RunId | None
    created_at: str
    started_at: datetime | None = None
    """When it first started; None where it starts now."""
    span: Span | None = None
    """Where the process sends spans, the run's."""
    inbox: Inbox = field(default_factory=Inbox)
    dagster_run: DagsterRun | None = None
    """Where a worker executes the run, Dagster's record of it."""
    selected: tuple[NodeId, ...] | None = None
    """The nodes to execute, where they are not all: the others have their outputs."""
    progress: Progress | None = None
    """What had been done when this worker got the run; None where nobody has looked yet."""
    interrupt: Interrupt | None = None
    resume_at: float | None = None
    """When ``interrupt`` is ``wait``: when to go on, in seconds since 1970."""
    only_waits: bool = False
    """All that is under way in it waits for a time to come."""
    freed: Callable[[], None] = lambda: None
    """Called when that becomes so: the worker has room for another run."""


def read_active(connection: Connection, tenant: TenantId, run_id: RunId) -> ActiveRun:
    """Load what a run was started with, outside a worker. Raises :class:`NotFound`."""
    row = connection.execute(READ, (tenant, run_id)).fetchone()
    if row is None:
        raise NotFound("there is no such run", run_id=run_id)
    parent = row["parent_run_id"]
    return ActiveRun(
        tenant=tenant,
        run_id=run_id,
        params=row["params"],
        trigger=row["trigger"],
        parent_run_id=RunId(parent) if parent else None,
        created_at=row["created_at"].isoformat(),
        started_at=row["started_at"],
    )
