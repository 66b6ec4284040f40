"""Node outputs: durable, one row per node and run, JSON text. Large ones are in the object store.

On the warm path an output is first put into the object store, if it is large; then the writer
commits its row together with the node's success. Reading is for resumed runs. Under Dagster's own
executors :class:`OutputIOManager` does both.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Final, LiteralString

import orjson
from dagster import InputContext, IOManager, OutputContext
from psycopg.rows import DictRow

from dynamic_jobs.executing.nodes import NodeOutput
from dynamic_jobs.foreign_json import may_hold_reserved_key
from dynamic_jobs.naming import TENANT_TAG, outputs_folder
from dynamic_jobs.storage.outputs import ObjectRef, Stored, insert_outputs
from foundation.database import Connection, connect
from foundation.errors import GraphwrightError
from foundation.ids import NodeId, RunId, TenantId
from foundation.object_store import ObjectMissing, ObjectStore, ObjectStoreAway
from node_types.base import NodeError

PREVIEW_BYTES: Final = 4_096
"""Up to this size an output is shown whole, in the Dagster UI and in the ``node.output`` event."""

READ: Final[LiteralString] = """
SELECT node, value, object_key, bytes FROM graphwright.node_outputs
WHERE tenant = %s AND run_id = %s AND node = ANY(%s)
"""

# The parent's rows are held, so that retention sees either them or those made here.
ADOPT: Final[LiteralString] = """
INSERT INTO graphwright.node_outputs (tenant, run_id, node, value, object_key, bytes)
SELECT tenant, %(run_id)s, node, value, object_key, bytes FROM graphwright.node_outputs
WHERE tenant = %(tenant)s AND run_id = %(parent)s AND node = ANY(%(nodes)s)
FOR KEY SHARE
ON CONFLICT DO NOTHING
"""


# What it was given is no progress of its own: that would clear a strike.
COUNT_ADOPTED: Final[LiteralString] = """
UPDATE graphwright.runs SET nodes_done = (
    SELECT count(*) FROM graphwright.node_outputs
    WHERE tenant = %(tenant)s AND run_id = %(run_id)s
)
WHERE tenant = %(tenant)s AND run_id = %(run_id)s
"""


class OutputNotStored(NodeError):
    """The object store did not take a large output; another attempt may find it back."""

    code: ClassVar[str] = "output_not_stored"


class OutputLost(GraphwrightError):
    """An output was stored, and is not in the object store any more."""

    code: ClassVar[str] = "output_lost"


@dataclass(frozen=True, slots=True)
class LargeOutput(NodeOutput):
    """An output that is in the object store."""

    ref: ObjectRef


class OutputStore:
    """Knows where outputs belong, and keeps those that are too large for a row."""

    def __init__(self, objects: ObjectStore, inline_bytes: int) -> None:
        """``inline_bytes`` is the most that a row holds itself, as JSON."""
        self._objects = objects
        self._inline_bytes = inline_bytes

    def is_large(self, size: int) -> bool:
        """Whether JSON of so many bytes belongs into the object store."""
        return size > self._inline_bytes

    def put(self, tenant: TenantId, run_id: RunId, node: NodeId, text: str) -> ObjectRef:
        """Keep a large output for good, beside that of any other attempt; for a thread.

        Raises :class:`OutputNotStored`.
        """
        data = text.encode()
        key = f"{outputs_folder(tenant, run_id)}/{node}/{secrets.token_hex(16)}"
        try:
            self._objects.put(key, data)
        except ObjectStoreAway as error:
            raise OutputNotStored(
                f"the output of {node}, {len(data)} bytes, cannot be kept: {error.message}",
                hint=f"{error.hint} Then run the node again.",
            ) from error
        return ObjectRef(key, len(data))

    def get(self, ref: ObjectRef) -> bytes:
        """A large output, as JSON; for a thread.

        Raises :class:`OutputLost` and :class:`ObjectStoreAway`.
        """
        try:
            data = self._objects.get(ref.key)
        except ObjectMissing as error:
            raise _lost(ref) from error
        if len(data) != ref.size:
            raise _lost(ref)
        return data

    def link(self, ref: ObjectRef, seconds: int) -> str | None:
        """A URL at which anybody may read a large output for so long, if the store has any.

        For a thread. Raises :class:`ObjectStoreAway`.
        """
        return self._objects.link(ref.key, seconds, "application/json")

    def close(self) -> None:
        self._objects.close()


def _lost(ref: ObjectRef) -> OutputLost:
    return OutputLost(
        f"an output of {ref.size} bytes is not in the object store any more, or not whole",
        hint=f"Restore the object {ref.key}, or run its node again.",
    )


def stored(output: NodeOutput) -> Stored:
    """What the row of this output holds."""
    return output.ref if isinstance(output, LargeOutput) else output.text


def read_outputs(
    connection: Connection,
    store: OutputStore,
    tenant: TenantId,
    run_id: RunId,
    nodes: Collection[NodeId],
) -> dict[NodeId, Any]:
    """The stored outputs of these nodes, as JSON values; a node without one is left out.

    Raises :class:`OutputLost` and :class:`ObjectStoreAway`.
    """
    rows = connection.execute(READ, (tenant, run_id, list(nodes)))
    return {NodeId(row["node"]): orjson.loads(_text(store, row)) for row in rows}


def _text(store: OutputStore, row: DictRow) -> str | bytes:
    if row["object_key"] is None:
        return row["value"]
    try:
        return store.get(ObjectRef(row["object_key"], row["bytes"]))
    except OutputLost as error:
        raise OutputLost(
            f"{row['node']}: {error.message}",
            hint=f"{error.hint} A re-run from {row['node']} does so.",
            node=row["node"],
        ) from error


def adopt_outputs(
    connection: Connection,
    tenant: TenantId,
    parent: RunId,
    run_id: RunId,
    nodes: Collection[NodeId],
) -> None:
    """Give a re-run the outputs of its parent for the nodes that it does not run again.

    Objects are not copied: both runs name the same.
    """
    values = {"tenant": tenant, "parent": parent, "run_id": run_id, "nodes": list(nodes)}
    with connection.transaction():
        connection.execute(ADOPT, values)
        connection.execute(COUNT_ADOPTED, values)


def preview(value: Any, text: str) -> dict[str, Any]:
    """Metadata of HANDLED_OUTPUT: the size, and the value itself where it is small and harmless."""
    shown = {"bytes": len(text.encode())}
    return {**shown, "value": {"output": value}} if is_shown(text) else shown


def is_shown(text: str) -> bool:
    """Whether an output, as JSON text, is shown whole."""
    return len(text) <= PREVIEW_BYTES and not may_hold_reserved_key(text)


class OutputIOManager(IOManager):
    """Stores outputs under Dagster's own executors, as the warm path does."""

    def __init__(self, database_url: str, store: OutputStore) -> None:
        self._url = database_url
        self._store = store

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        data = orjson.dumps(obj)
        text = data.decode()
        context.add_output_metadata(preview(obj, text))
        tenant = TenantId(context.step_context.dagster_run.tags[TENANT_TAG])
        run_id, node = RunId(context.run_id), NodeId(context.step_key)
        kept = text
        if self._store.is_large(len(data)):
            kept = self._store.put(tenant, run_id, node, text)
        with connect(self._url) as connection, connection.transaction():
            insert_outputs(connection, {(tenant, run_id, node): kept})

    def load_input(self, context: InputContext) -> None:
        """Edges carry order, not values: a node reads what its expressions name."""
