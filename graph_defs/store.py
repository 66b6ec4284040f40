"""The graph store: graphs and their immutable versions in PostgreSQL."""

import json
import re
from collections.abc import Mapping
from typing import Any, LiteralString, cast

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from foundation.database import AsyncConnection, AsyncPool, Connection
from foundation.errors import NotFound
from foundation.ids import GraphId, GraphVersionId, TenantId, new_id
from foundation.paging import Page, decode_cursor, encode_cursor
from graph_defs import statements
from graph_defs.fingerprint import canonical
from graph_defs.json_values import JsonObject
from graph_defs.names import is_graph_name
from graph_defs.versions import Graph, GraphVersion

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class GraphStore:
    """Graphs of all tenants; every method asks for one tenant's and sees no other's."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool

    async def ensure_tenant(self, tenant: TenantId) -> None:
        """Make the tenant unless there is one of this name."""
        async with self._pool.connection() as connection:
            await connection.execute(statements.ENSURE_TENANT, {"tenant": tenant})

    async def apply(
        self,
        tenant: TenantId,
        document: JsonObject,
        fingerprint: str,
        node_types: Mapping[str, int],
        author: str,
    ) -> tuple[Graph, bool]:
        """Publish a valid document, and say whether that made a new version.

        The graph is the one of the document's name, made where there is none. A document that one
        of its versions has is that version again, published anew where it was not the published
        one. Calls at the same moment for one graph wait for each other and all succeed.
        """
        metadata = cast("dict[str, Any]", document["metadata"])
        given = {
            "tenant": tenant,
            "graph_id": new_id(),
            "graph_version_id": new_id(),
            "name": metadata["name"],
            "labels": Jsonb(metadata.get("labels", {})),
            "description": metadata.get("description", ""),
            "fingerprint": fingerprint,
            "document": canonical(document).decode(),
            "node_types": Jsonb(dict(node_types)),
            "author": author,
        }
        async with self._pool.connection() as connection, connection.transaction():
            graph = await _locked_graph(connection, given)
            given["graph_id"] = graph["graph_id"]
            known = await _row(connection, statements.VERSION_OF_FINGERPRINT, given)
            row = known or await _row(connection, statements.ADD_VERSION, given)
            assert row is not None
            if row["version"] != graph["version"]:
                given["version"] = row["version"]
                await connection.execute(statements.PUBLISH, given)
                await connection.execute(statements.MARK_USED, given)
            stored = await _row(connection, statements.GRAPH_BY_ID, given)
        assert stored is not None
        return _graph(stored), known is None

    async def get(self, tenant: TenantId, graph: str) -> Graph:
        """The graph of this id or name. Raises NotFound."""
        return _graph(
            await self._find(tenant, graph, statements.GRAPH_BY_ID, statements.GRAPH_BY_NAME)
        )

    async def published(self, tenant: TenantId, graph: str) -> GraphVersion:
        """The published version of the graph of this id or name. Raises NotFound."""
        return _version(
            await self._find(
                tenant,
                graph,
                statements.PUBLISHED_VERSION,
                statements.PUBLISHED_VERSION_BY_NAME,
            )
        )

    async def list(self, tenant: TenantId, limit: int, cursor: str | None = None) -> Page[Graph]:
        """At most ``limit`` graphs, newest first. Raises Invalid for a bad cursor."""
        # One more than asked for tells whether there is a next page.
        given: dict[str, Any] = {"tenant": tenant, "limit": limit + 1}
        statement = statements.FIRST_GRAPHS
        if cursor is not None:
            given["before"] = decode_cursor(cursor)
            statement = statements.GRAPHS_BEFORE
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(statement, given)).fetchall()
        graphs = [_graph(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(graphs, encode_cursor(graphs[-1].graph_id) if more else None)

    async def version(
        self, tenant: TenantId, graph_id: GraphId, version: int | None = None
    ) -> GraphVersion:
        """A graph's version of this number, else its published one. Raises NotFound."""
        given = {"tenant": tenant, "graph_id": graph_id, "version": version}
        statement = statements.PUBLISHED_VERSION if version is None else statements.NUMBERED_VERSION
        async with self._pool.connection() as connection:
            row = await _row(connection, statement, given)
        if row is None:
            raise _no_graph(graph_id, version)
        return _version(row)

    async def _find(
        self, tenant: TenantId, graph: str, by_id: LiteralString, by_name: LiteralString
    ) -> DictRow:
        if _UUID.fullmatch(graph):
            statement, given = by_id, {"tenant": tenant, "graph_id": graph}
        elif is_graph_name(graph):
            statement, given = by_name, {"tenant": tenant, "name": graph}
        else:
            raise _no_graph(graph)
        async with self._pool.connection() as connection:
            row = await _row(connection, statement, given)
        if row is None:
            raise _no_graph(graph)
        return row


def load_version(
    connection: Connection, tenant: TenantId, graph_version_id: GraphVersionId
) -> GraphVersion:
    """One version by its id, for workers. Raises NotFound."""
    given = {"tenant": tenant, "graph_version_id": graph_version_id}
    row = connection.execute(statements.VERSION_BY_ID, given).fetchone()
    if row is None:
        raise NotFound("there is no such graph version", graph_version_id=graph_version_id)
    return _version(row)


async def _locked_graph(connection: AsyncConnection, given: Mapping[str, Any]) -> DictRow:
    """The graph of this name, made where missing, locked until the transaction's end."""
    row = (
        await _row(connection, statements.LOCK_GRAPH, given)
        or await _row(connection, statements.ADD_GRAPH, given)
        # Another transaction made it between the two; it has committed, or the insert would wait.
        or await _row(connection, statements.LOCK_GRAPH, given)
    )
    assert row is not None
    return row


async def _row(
    connection: AsyncConnection, statement: LiteralString, given: Mapping[str, Any]
) -> DictRow | None:
    return await (await connection.execute(statement, given)).fetchone()


def _graph(row: DictRow) -> Graph:
    return Graph(**row)


def _version(row: DictRow) -> GraphVersion:
    return GraphVersion(**{**row, "document": json.loads(row["document"])})


def _no_graph(graph: str, version: int | None = None) -> NotFound:
    what = "graph" if version is None else f"version {version} of the graph"
    return NotFound(
        f"there is no {what} {graph}", hint="`GET /api/v1/graphs` lists what there is.", graph=graph
    )
