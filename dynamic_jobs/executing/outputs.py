"""Node outputs: durable in PostgreSQL, one row per node and run, JSON text.

On the warm path the writer commits an output together with the node's success, and reading is for
resumed runs. Under Dagster's own executors :class:`OutputIOManager` does both.
"""

from collections.abc import Collection
from typing import Any, Final, LiteralString

import orjson
from dagster import InputContext, IOManager, OutputContext

from dynamic_jobs.foreign_json import may_hold_reserved_key
from dynamic_jobs.naming import TENANT_TAG
from dynamic_jobs.storage.statements import INSERT_OUTPUTS
from foundation.database import Connection, connect
from foundation.ids import NodeId, RunId, TenantId

PREVIEW_BYTES: Final = 4_096
"""Up to this size an output is shown whole, in the Dagster UI and in the ``node.output`` event."""

READ: Final[LiteralString] = """
SELECT node, value FROM graphwright.node_outputs
WHERE tenant = %s AND run_id = %s AND node = ANY(%s)
"""

ADOPT: Final[LiteralString] = """
INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)
SELECT tenant, %(run_id)s, node, value FROM graphwright.node_outputs
WHERE tenant = %(tenant)s AND run_id = %(parent)s AND node = ANY(%(nodes)s)
ON CONFLICT DO NOTHING
"""


def read_outputs(
    connection: Connection, tenant: TenantId, run_id: RunId, nodes: Collection[NodeId]
) -> dict[NodeId, Any]:
    """The stored outputs of these nodes, as JSON values; a node without one is left out."""
    rows = connection.execute(READ, (tenant, run_id, list(nodes)))
    return {NodeId(row["node"]): orjson.loads(row["value"]) for row in rows}


def adopt_outputs(
    connection: Connection,
    tenant: TenantId,
    parent: RunId,
    run_id: RunId,
    nodes: Collection[NodeId],
) -> None:
    """Give a re-run the outputs of its parent for the nodes that it does not run again."""
    values = {"tenant": tenant, "parent": parent, "run_id": run_id, "nodes": list(nodes)}
    connection.execute(ADOPT, values)


def preview(value: Any, text: str) -> dict[str, Any]:
    """Metadata of HANDLED_OUTPUT: the size, and the value itself where it is small and harmless."""
    shown = {"bytes": len(text.encode())}
    return {**shown, "value": {"output": value}} if is_shown(text) else shown


def is_shown(text: str) -> bool:
    """Whether an output, as JSON text, is shown whole."""
    return len(text) <= PREVIEW_BYTES and not may_hold_reserved_key(text)


class OutputIOManager(IOManager):
    """Stores outputs under Dagster's own executors, in the same rows as the warm path."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url

    def handle_output(self, context: OutputContext, obj: Any) -> None:
        text = orjson.dumps(obj).decode()
        context.add_output_metadata(preview(obj, text))
        with connect(self._url) as connection:
            tenant = context.step_context.dagster_run.tags[TENANT_TAG]
            columns = ([tenant], [context.run_id], [context.step_key], [text])
            connection.execute(INSERT_OUTPUTS, columns)

    def load_input(self, context: InputContext) -> None:
        """Edges carry order, not values: a node reads what its expressions name."""
