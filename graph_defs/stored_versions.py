"""Versions as the database has them; of many, documents stay text until each is read."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import orjson
from psycopg.rows import DictRow

from foundation.database import AsyncConnection, Connection
from foundation.errors import NotFound
from foundation.ids import GraphId, GraphVersionId, TenantId
from graph_defs import statements
from graph_defs.versions import GraphVersion


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version whose document is still text: hundreds of documents take much memory at once."""

    tenant: TenantId
    graph_id: GraphId
    graph_version_id: GraphVersionId
    name: str
    _row: DictRow

    @classmethod
    def of(cls, row: DictRow) -> Self:
        graph_id, version_id = GraphId(row["graph_id"]), GraphVersionId(row["graph_version_id"])
        return cls(TenantId(row["tenant"]), graph_id, version_id, row["name"], row)

    def read(self) -> GraphVersion:
        """The version with its document."""
        return version_of(self._row)


def version_of(row: DictRow) -> GraphVersion:
    """The version of a row of any of the statements that read versions."""
    return GraphVersion(**{**row, "document": orjson.loads(row["document"])})


def load_version(
    connection: Connection, tenant: TenantId, graph_version_id: GraphVersionId
) -> GraphVersion:
    """One version by its id, for workers. Raises NotFound."""
    given = {"tenant": tenant, "graph_version_id": graph_version_id}
    row = connection.execute(statements.VERSION_BY_ID, given).fetchone()
    if row is None:
        raise NotFound("there is no such graph version", graph_version_id=graph_version_id)
    return version_of(row)


async def published_versions(
    connection: AsyncConnection,
    graphs: Collection[tuple[TenantId, GraphId]],
    most_bytes: int,
) -> tuple[list[StoredVersion], set[tuple[TenantId, GraphId]]]:
    """The published versions of these graphs, of those that there are, in any order; and which
    graphs are left out, since their documents have more than ``most_bytes`` bytes."""
    tenants, graph_ids = [tenant for tenant, _ in graphs], [graph_id for _, graph_id in graphs]
    given = {"tenants": tenants, "graph_ids": graph_ids, "most_bytes": most_bytes}
    rows = await (await connection.execute(statements.PUBLISHED_VERSIONS, given)).fetchall()
    large = {
        (TenantId(row["tenant"]), GraphId(row["graph_id"]))
        for row in rows
        if row["document"] is None
    }
    return [StoredVersion.of(row) for row in rows if row["document"] is not None], large
