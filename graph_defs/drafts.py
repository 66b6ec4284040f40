"""Drafts: what an author is working on, beside the version of the graph that is published."""

from collections.abc import Callable
from typing import Any, TypeAlias

import orjson
from psycopg.rows import DictRow

from foundation.database import AsyncConnection
from foundation.errors import Conflict, Fault, Invalid, NotFound
from foundation.ids import GraphId, TenantId
from foundation.tenant_pool import TenantPool
from graph_defs import statements
from graph_defs.finding import UUID, find_row, no_graph, one_row
from graph_defs.fingerprint import Canonical
from graph_defs.names import is_graph_name
from graph_defs.publishing import Publication, lock_graph, lock_or_make_graph, publish
from graph_defs.versions import Draft, Graph

DraftCheck: TypeAlias = Callable[[Draft | None], None]
"""Called with the draft as it is while its graph is locked, None where there is none; what it
raises undoes the change."""


class DraftStore:
    """Drafts of all tenants; every method asks for one tenant's and sees no other's."""

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def get(self, tenant: TenantId, graph: str) -> Draft:
        """The draft of the graph of this id or name. Raises NotFound."""
        async with self._pool.connection(tenant) as connection:
            row = await find_row(
                connection, tenant, graph, statements.DRAFT_BY_ID, statements.DRAFT_BY_NAME
            )
        if row is None:
            raise _no_draft(graph)
        return _draft(row)

    async def put(
        self,
        tenant: TenantId,
        graph: str,
        document: Canonical,
        author: str,
        check: DraftCheck,
    ) -> tuple[Draft, bool]:
        """Make or replace the draft of this graph, and say whether there was none before.

        ``graph`` is an id, or a name; where there is no graph of the name, it is made without a
        published version.

        Raises NotFound for an unknown id, Invalid for what can be no name, QuotaExceeded where it
        would be one graph more than the tenant may have, and what ``check`` raises.
        """
        async with self._pool.connection(tenant) as connection, connection.transaction():
            if UUID.fullmatch(graph):
                locked = await lock_graph(connection, tenant, GraphId(graph))
            elif is_graph_name(graph):
                locked = await lock_or_make_graph(connection, tenant, graph)
            else:
                raise _bad_name()
            before = await _current(connection, tenant, locked.graph_id)
            check(before)
            given: dict[str, Any] = {
                "tenant": tenant,
                "graph_id": locked.graph_id,
                "fingerprint": document.fingerprint,
                "document": document.text,
                "author": author,
            }
            await connection.execute(statements.PUT_DRAFT, given)
            after = await _current(connection, tenant, locked.graph_id)
        assert after is not None
        return after, before is None

    async def delete(self, tenant: TenantId, graph: str, check: DraftCheck) -> None:
        """Throw the draft away. Raises NotFound, and what ``check`` raises."""
        async with self._pool.connection(tenant) as connection, connection.transaction():
            locked = await find_row(
                connection, tenant, graph, statements.LOCK_GRAPH_BY_ID, statements.LOCK_GRAPH
            )
            if locked is None:
                raise no_graph(graph)
            graph_id = GraphId(locked["graph_id"])
            await _checked(connection, tenant, graph_id, check)
            await connection.execute(
                statements.DELETE_DRAFT, {"tenant": tenant, "graph_id": graph_id}
            )

    async def publish(
        self, draft: Draft, given: Publication, check: DraftCheck
    ) -> tuple[Graph, bool]:
        """Publish this draft, whose document was found to be valid, and say whether that made a new
        version. There is no draft afterwards.

        Raises NotFound where it is gone, Conflict where it has another document by now, and what
        ``check`` raises.
        """
        values = {"tenant": draft.tenant, "graph_id": draft.graph_id}
        async with self._pool.connection(draft.tenant) as connection, connection.transaction():
            graph = await lock_graph(connection, draft.tenant, draft.graph_id)
            current = await _checked(connection, draft.tenant, draft.graph_id, check)
            if current.fingerprint != draft.fingerprint:
                raise Conflict(
                    "the draft was changed while it was being published",
                    hint="Publish it again; send its ETag as If-Match to publish no other.",
                    graph=draft.name,
                )
            published = await publish(connection, draft.tenant, graph, given)
            await connection.execute(statements.DELETE_DRAFT, values)
        return published


async def _checked(
    connection: AsyncConnection, tenant: TenantId, graph_id: GraphId, check: DraftCheck
) -> Draft:
    current = await _current(connection, tenant, graph_id)
    check(current)
    if current is None:
        raise _no_draft(graph_id)
    return current


async def _current(
    connection: AsyncConnection, tenant: TenantId, graph_id: GraphId
) -> Draft | None:
    given = {"tenant": tenant, "graph_id": graph_id}
    row = await one_row(connection, statements.DRAFT_BY_ID, given)
    return None if row is None else _draft(row)


def _draft(row: DictRow) -> Draft:
    return Draft(**{**row, "document": orjson.loads(row["document"])})


def _no_draft(graph: str) -> NotFound:
    return NotFound(
        f"there is no draft of a graph {graph}",
        hint="`PUT /api/v1/graphs/{graph}/draft` makes one.",
        graph=graph,
    )


def _bad_name() -> Invalid:
    fault = Fault(
        "/graph",
        "bad_name",
        "This is no name that a graph may have.",
        "It has 1 to 63 lower-case letters, digits and hyphens, no hyphen at an end.",
    )
    return Invalid("The request has faults.", [fault])
