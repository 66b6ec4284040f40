"""The graph store: graphs and their immutable versions in PostgreSQL."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from foundation.database import AsyncConnection
from foundation.errors import Conflict
from foundation.group_reads import GroupReads
from foundation.ids import GraphId, TenantId
from foundation.paging import Page, decode_cursor, encode_cursor
from foundation.tenant_pool import TenantPool
from graph_defs import statements
from graph_defs.finding import UUID as UUID_TEXT
from graph_defs.finding import find_row, no_graph, one_row
from graph_defs.names import is_graph_name
from graph_defs.publishing import (
    Check,
    Publication,
    label_text,
    lock_graph,
    lock_or_make_graph,
    publish,
    set_labels,
)
from graph_defs.stored_versions import version_of
from graph_defs.trigger_sync import sync_triggers
from graph_defs.versions import Graph, GraphVersion, VersionSummary

_NEWEST = 2**31 - 1
"""No version has a greater number."""
_PUBLICATIONS: Final = 8
"""At once: those that wait for others' locks are not to keep readers from sessions."""


class NotPublished(Conflict):
    """The graph was never published, so it cannot run."""

    code = "not_published"


class GraphStore:
    """Graphs of all tenants; every method asks for one tenant's and sees no other's."""

    def __init__(self, pool: TenantPool, by_key: TenantPool | None = None) -> None:
        """``by_key`` is where single graphs are read and published, by default ``pool`` too."""
        self._pool = pool
        self._pool_by_key = by_key or pool
        self._publishing = asyncio.Semaphore(_PUBLICATIONS)
        self._by_id = GroupReads(partial(self._read, statements.GRAPHS_BY_ID, "graph_id"))
        self._by_name = GroupReads(partial(self._read, statements.GRAPHS_BY_NAME, "name"))

    async def ensure_tenant(self, tenant: TenantId) -> None:
        """Make the tenant unless there is one of this name."""
        async with self._pool.connection(tenant) as connection:
            await connection.execute(statements.ENSURE_TENANT, {"tenant": tenant})

    async def apply(
        self,
        tenant: TenantId,
        given: Publication,
        check: Check | None = None,
    ) -> tuple[Graph, bool]:
        """Publish a document, and say whether that made a new version.

        The graph is the one of the document's name, made where there is none. A document that one
        of its versions has is that version again, published anew where it was not the published
        one. Calls at the same moment for one graph wait for each other and all succeed, but for
        what ``check`` says: it is called with the graph as each of them finds it.

        Raises QuotaExceeded where it would be one graph more than the tenant may have.
        """
        async with self._publication(tenant) as connection:
            graph = await lock_or_make_graph(connection, tenant, given.metadata["name"], check)
            return await publish(connection, tenant, graph, given)

    async def republish(
        self, version: GraphVersion, given: Publication, check: Check | None = None
    ) -> Graph:
        """Publish a version of a graph again, whose document was found to be valid still.

        Raises NotFound where the graph was deleted meanwhile, and what ``check`` raises.
        """
        tenant = version.tenant
        async with self._publication(tenant) as connection:
            graph = await lock_graph(connection, tenant, version.graph_id, check)
            published, _ = await publish(connection, tenant, graph, given)
        return published

    @asynccontextmanager
    async def _publication(self, tenant: TenantId) -> AsyncGenerator[AsyncConnection]:
        async with (
            self._publishing,
            self._pool_by_key.connection(tenant) as connection,
            connection.transaction(),
        ):
            yield connection

    async def delete(self, tenant: TenantId, graph: str, check: Check | None = None) -> GraphId:
        """Delete the graph of this id or name, with its triggers and its draft; its id.

        Its runs can still be read, and its name is free again. A run that is started at the very
        moment may still run.

        Raises NotFound, Conflict where it has runs that have not ended, and what ``check`` raises.
        """
        graph_id = (await self.get(tenant, graph)).graph_id
        given = {"tenant": tenant, "graph_id": graph_id}
        async with self._pool.connection(tenant) as connection, connection.transaction():
            locked = await lock_graph(connection, tenant, graph_id, check)
            run = await one_row(connection, statements.UNFINISHED_RUNS, given)
            if run is not None:
                raise Conflict(
                    "the graph has runs that have not ended",
                    hint="Cancel them first, or wait for their end.",
                    graph=graph,
                    run_id=run["run_id"],
                )
            await sync_triggers(connection, tenant, graph_id, {})
            await set_labels(connection, tenant, locked, {})
            await connection.execute(statements.DELETE_GRAPH, given)
        return graph_id

    async def get(self, tenant: TenantId, graph: str) -> Graph:
        """The graph of this id or name. Raises NotFound."""
        found = None
        if UUID_TEXT.fullmatch(graph):
            found = await self._by_id.get(tenant, graph)
        elif is_graph_name(graph):
            found = await self._by_name.get(tenant, graph)
        if found is None:
            raise no_graph(graph)
        return found

    async def _read(
        self, statement: LiteralString, key: str, tenant: TenantId, keys: Sequence[str]
    ) -> Mapping[str, Graph]:
        async with self._pool_by_key.connection(tenant) as connection:
            found = await connection.execute(statement, {"tenant": tenant, "keys": keys})
            return {row[key]: Graph(**row) for row in await found.fetchall()}

    async def published(self, tenant: TenantId, graph: str) -> GraphVersion:
        """The published version of the graph of this id or name.

        Raises NotFound, and NotPublished where it has a draft alone.
        """
        async with self._pool_by_key.connection(tenant) as connection:
            row = await find_row(
                connection,
                tenant,
                graph,
                statements.PUBLISHED_VERSION,
                statements.PUBLISHED_VERSION_BY_NAME,
            )
        if row is None:
            await self.get(tenant, graph)
            raise NotPublished(
                "the graph has no published version",
                hint=f"Publish its draft: POST /api/v1/graphs/{graph}/publish",
                graph=graph,
            )
        return version_of(row)

    async def list(
        self,
        tenant: TenantId,
        limit: int,
        cursor: str | None = None,
        labels: Collection[tuple[str, str]] = (),
    ) -> Page[Graph]:
        """At most ``limit`` graphs, newest first, of those that have all of these ``labels``.

        Raises Invalid for a bad cursor.
        """
        # One more than asked for tells whether there is a next page.
        given: dict[str, Any] = {"tenant": tenant, "limit": limit + 1}
        first, following = statements.FIRST_GRAPHS, statements.GRAPHS_BEFORE
        if labels:
            first, following = statements.FIRST_LABELLED, statements.LABELLED_BEFORE
            given |= labels_asked_for(labels)
        if cursor is not None:
            given["before"] = decode_cursor(cursor)
        async with self._pool.connection(tenant) as connection:
            found = await connection.execute(first if cursor is None else following, given)
            rows = await found.fetchall()
        graphs = [Graph(**row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(graphs, encode_cursor(graphs[-1].graph_id) if more else None)

    async def versions(
        self, tenant: TenantId, graph_id: GraphId, limit: int, cursor: str | None = None
    ) -> Page[VersionSummary]:
        """At most ``limit`` versions of a graph, newest first. Raises Invalid for a bad cursor."""
        # A cursor is a UUID: here the number itself.
        before = _NEWEST if cursor is None else min(UUID(decode_cursor(cursor)).int, _NEWEST)
        given = {"tenant": tenant, "graph_id": graph_id, "before": before, "limit": limit + 1}
        async with self._pool.connection(tenant) as connection:
            found = await connection.execute(statements.VERSION_SUMMARIES, given)
            rows = await found.fetchall()
        versions = [VersionSummary(**row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(versions, encode_cursor(str(UUID(int=versions[-1].version))) if more else None)

    async def version(
        self, tenant: TenantId, graph_id: GraphId, version: int | None = None
    ) -> GraphVersion:
        """A graph's version of this number, else its published one. Raises NotFound."""
        given = {"tenant": tenant, "graph_id": graph_id, "version": version}
        statement = statements.PUBLISHED_VERSION if version is None else statements.NUMBERED_VERSION
        async with self._pool_by_key.connection(tenant) as connection:
            row = await one_row(connection, statement, given)
        if row is None:
            raise no_graph(graph_id, version)
        return version_of(row)

    async def document(self, tenant: TenantId, graph_id: GraphId, version: int) -> str:
        """The document of a version as JSON text. Raises NotFound."""
        given = {"tenant": tenant, "graph_id": graph_id, "version": version}
        async with self._pool_by_key.connection(tenant) as connection:
            row = await one_row(connection, statements.DOCUMENT, given)
        if row is None:
            raise no_graph(graph_id, version)
        return row["document"]


def labels_asked_for(labels: Collection[tuple[str, str]]) -> dict[str, Any]:
    """The values of statements that look graphs up by the first label, and check all."""
    return {
        "label": label_text(next(iter(labels))),
        "labels": [Jsonb({name: value}) for name, value in labels],
    }
