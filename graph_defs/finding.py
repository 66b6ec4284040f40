"""Finding a graph by what users call it: its id or its name."""

import re
from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg.rows import DictRow

from foundation.database import AsyncConnection
from foundation.errors import NotFound
from foundation.ids import TenantId
from graph_defs.names import is_graph_name

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def find_row(
    connection: AsyncConnection,
    tenant: TenantId,
    graph: str,
    by_id: LiteralString,
    by_name: LiteralString,
) -> DictRow | None:
    """The row of one of these statements; None also for what can be neither an id nor a name."""
    if UUID.fullmatch(graph):
        return await one_row(connection, by_id, {"tenant": tenant, "graph_id": graph})
    if is_graph_name(graph):
        return await one_row(connection, by_name, {"tenant": tenant, "name": graph})
    return None


async def one_row(
    connection: AsyncConnection, statement: LiteralString, given: Mapping[str, Any]
) -> DictRow | None:
    """The statement's only row."""
    return await (await connection.execute(statement, given)).fetchone()


def no_graph(graph: str, version: int | None = None) -> NotFound:
    """The error for a graph, or a version of it, that there is not."""
    what = "graph" if version is None else f"version {version} of the graph"
    return NotFound(
        f"there is no {what} {graph}", hint="`GET /api/v1/graphs` lists what there is.", graph=graph
    )
