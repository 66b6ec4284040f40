"""Publishing a document, in the caller's transaction: its version, what lists ask for, triggers.

The graph's row is locked first, so that what is published at the same moment comes in a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from psycopg.types.json import Jsonb

from foundation.database import AsyncConnection
from foundation.errors import Invalid, QuotaExceeded
from foundation.ids import GraphId, TenantId, new_id
from graph_defs import statements
from graph_defs.finding import no_graph, one_row
from graph_defs.fingerprint import Canonical
from graph_defs.json_values import JsonObject
from graph_defs.placement import Placement
from graph_defs.placement_policy import PlacementPolicy, breaches
from graph_defs.trigger_sync import sync_triggers
from graph_defs.versions import Graph

Check: TypeAlias = Callable[[Graph | None], None]
"""Called with the graph as it is while it is locked, None where there is none; what it raises
undoes the change."""


@dataclass(frozen=True, slots=True)
class Publication:
    """A document without faults, as ``graph_defs.admission.admit`` gives it."""

    given: Canonical
    node_types: Mapping[str, int]
    """Each node type that it uses, and its version."""
    author: str

    @property
    def metadata(self) -> dict[str, Any]:
        """The document's."""
        return cast("dict[str, Any]", self.given.document["metadata"])


@dataclass(frozen=True, slots=True)
class LockedGraph:
    """A graph that nobody else changes until the transaction's end."""

    graph_id: GraphId
    name: str
    version: int
    """0: none is published."""
    labels: Mapping[str, str]
    is_new: bool = False
    """It was made just now."""


async def lock_graph(
    connection: AsyncConnection, tenant: TenantId, graph_id: GraphId, check: Check | None = None
) -> LockedGraph:
    """Lock the graph of this id. Raises NotFound, and what ``check`` raises."""
    given = {"tenant": tenant, "graph_id": graph_id}
    row = await one_row(connection, statements.LOCK_GRAPH_BY_ID, given)
    if row is None:
        raise no_graph(graph_id)
    graph = LockedGraph(**row)
    await _check(connection, tenant, graph, check)
    return graph


async def lock_or_make_graph(
    connection: AsyncConnection, tenant: TenantId, name: str, check: Check | None = None
) -> LockedGraph:
    """Lock the graph of this name, which is made where there is none.

    Raises QuotaExceeded where it would be one more than the tenant may have, and what ``check``
    raises.
    """
    given = {"tenant": tenant, "name": name, "graph_id": new_id()}
    row = await one_row(connection, statements.LOCK_GRAPH, given)
    is_new = False
    if row is None:
        await connection.execute(statements.ENSURE_TENANT, given)  # or it had no policy
        row = await one_row(connection, statements.ADD_GRAPH, given)
        is_new = row is not None
    if row is None:
        # Another transaction made it between the two; it has committed, or the insert would wait.
        row = await one_row(connection, statements.LOCK_GRAPH, given)
    if row is None:
        raise QuotaExceeded(
            "the tenant has as many graphs as it may have",
            hint="Ask for a higher quota.",
            quota="max_graphs",
            tenant=tenant,
        )
    graph = LockedGraph(**row, is_new=is_new)
    await _check(connection, tenant, graph, check)
    return graph


async def publish(
    connection: AsyncConnection, tenant: TenantId, graph: LockedGraph, publication: Publication
) -> tuple[Graph, bool]:
    """Publish the document as the locked graph's version, and say whether that is a new one.

    A document that one of its versions has is that version again.

    Raises Invalid where the tenant may not have its runs where the document wants them.
    """
    given, metadata = publication.given, publication.metadata
    labels, description = metadata.get("labels", {}), metadata.get("description", "")
    values: dict[str, Any] = {
        "tenant": tenant,
        "graph_id": graph.graph_id,
        "graph_version_id": new_id(),
        "labels": Jsonb(labels),
        "description": description,
        "fingerprint": given.fingerprint,
        "document": given.text,
        "node_types": Jsonb(dict(publication.node_types)),
        "author": publication.author,
    }
    before = await one_row(connection, statements.BEFORE_PUBLISHING, values)
    assert before is not None, "a tenant with a graph has a policy"
    policy = PlacementPolicy.model_validate(before["placement"])
    if faults := breaches(Placement.of(given.document), before["isolations"], policy):
        raise Invalid("The graph may not run where it wants to.", faults)
    version = before["version"]
    if is_new := version is None:
        added = await one_row(connection, statements.ADD_VERSION, values)
        assert added is not None
        version = added["version"]
    if version == graph.version:
        return await _published(connection, tenant, graph), is_new
    values["version"] = version
    row = await one_row(connection, statements.PUBLISH, values)
    assert row is not None
    await set_labels(connection, tenant, graph, labels)
    triggers = cast("dict[str, JsonObject]", given.document.get("triggers", {}))
    if triggers or before["has_triggers"]:
        await sync_triggers(connection, tenant, graph.graph_id, triggers)
    return Graph(
        tenant=tenant,
        name=graph.name,
        version=version,
        fingerprint=given.fingerprint,
        description=description,
        labels=labels,
        **row,
    ), is_new


async def set_labels(
    connection: AsyncConnection, tenant: TenantId, graph: LockedGraph, labels: Mapping[str, str]
) -> None:
    """Let lists find the locked graph by these labels, and no more by those that it has."""
    before, after = set(map(label_text, graph.labels.items())), set(map(label_text, labels.items()))
    if before == after:
        return
    values: dict[str, Any] = {
        "tenant": tenant,
        "graph_id": graph.graph_id,
        "gone": list(before - after),
        "new": list(after - before),
    }
    await connection.execute(statements.CHANGE_LABELS, values)


def label_text(label: tuple[str, str]) -> str:
    """A label's name and value as one text; names have no colon."""
    return ":".join(label)


async def _check(
    connection: AsyncConnection, tenant: TenantId, graph: LockedGraph, check: Check | None
) -> None:
    if check is None:
        return
    if graph.is_new:
        check(None)
        return
    check(await _published(connection, tenant, graph))


async def _published(connection: AsyncConnection, tenant: TenantId, graph: LockedGraph) -> Graph:
    given = {"tenant": tenant, "graph_id": graph.graph_id}
    row = await one_row(connection, statements.GRAPH_BY_ID, given)
    assert row is not None
    return Graph(**row)
