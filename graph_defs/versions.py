"""What the graph store gives back: graphs and their versions, frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from foundation.ids import GraphId, GraphVersionId, TenantId
from graph_defs.json_values import JsonObject


@dataclass(frozen=True, slots=True)
class Graph:
    """A user's graph: a name that points at its published version.

    ``version`` counts from 1; ``fingerprint`` is of the published version's document. A graph that
    was never published, and so has a draft alone, has version 0 and no fingerprint.
    """

    graph_id: GraphId
    tenant: TenantId
    name: str
    version: int
    fingerprint: str | None
    description: str
    labels: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    paused: bool
    """Its runs stay queued."""


@dataclass(frozen=True, slots=True)
class GraphVersion:
    """One immutable version of a graph.

    ``fingerprint`` is 64 hex digits; ``node_types`` maps each node type that the document uses to
    the version of it that was current when this was first published.
    """

    graph_version_id: GraphVersionId
    graph_id: GraphId
    tenant: TenantId
    name: str
    version: int
    fingerprint: str
    document: JsonObject
    node_types: Mapping[str, int]
    author: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A version as lists show it, without its document."""

    version: int
    fingerprint: str
    author: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """A document that is not published yet, and may have faults. A graph has at most one."""

    graph_id: GraphId
    tenant: TenantId
    name: str
    published_version: int
    """The graph's published version just now; 0 where there is none."""
    fingerprint: str
    document: JsonObject
    author: str
    created_at: datetime
    updated_at: datetime
