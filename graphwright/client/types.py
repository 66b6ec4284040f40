"""What the API answers with, as it comes: JSON objects, times as RFC 3339 texts in UTC.

Later versions of the API add members; those that are not here are kept.
"""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

RunStatus: TypeAlias = Literal[
    "queued", "running", "waiting", "paused", "cancelling", "succeeded", "failed", "cancelled"
]
NodeStatus: TypeAlias = Literal[
    "pending", "running", "retrying", "waiting", "succeeded", "failed", "skipped", "cancelled"
]
Role: TypeAlias = Literal["viewer", "operator", "editor", "admin"]


class FaultObject(TypedDict):
    """One thing wrong with a document, at an RFC 6901 pointer."""

    pointer: str
    code: str
    message: str
    hint: str


class Graph(TypedDict):
    """A graph, as its published version has it."""

    graph_id: str
    name: str
    version: int
    fingerprint: str
    description: str
    labels: Mapping[str, str]
    created_at: str
    updated_at: str
    paused: bool
    etag: NotRequired[str]
    """Of a graph that was read or changed alone: for ``if_match``."""


class GraphDetail(Graph):
    """A graph with its published document."""

    document: dict[str, Any]


class GraphVersion(TypedDict):
    """A version of a graph. It never changes."""

    version: int
    fingerprint: str
    author: str
    created_at: str


class GraphVersionDetail(GraphVersion):
    """A version with its document, and the versions of the node types that it uses."""

    graph_id: str
    name: str
    node_types: Mapping[str, int]
    document: dict[str, Any]


class DraftState(TypedDict):
    """A document that waits to be published; ``published_version`` is 0 where none is."""

    graph_id: str
    name: str
    published_version: int
    fingerprint: str
    author: str
    created_at: str
    updated_at: str
    etag: NotRequired[str]


class Draft(DraftState):
    """A draft with its document."""

    document: dict[str, Any]


class CheckedDraft(DraftState):
    """A draft that was stored, with what keeps it from being published."""

    errors: list[FaultObject]


class ValidDocument(TypedDict):
    """A document without faults, and the versions of the node types that it uses."""

    valid: Literal[True]
    name: str
    fingerprint: str
    nodes: list[str]
    node_types: Mapping[str, int]


class NodeChanges(TypedDict):
    """The nodes in which two documents differ, by their ids."""

    added: list[str]
    removed: list[str]
    changed: list[str]


# ``from`` is a keyword.
Diff = TypedDict(
    "Diff",
    {
        "from": str,
        "to": str,
        "patch": list[dict[str, Any]],
        "nodes": NodeChanges,
    },
)
"""What makes one document of the other: ``patch`` by RFC 6902."""


class RunLinks(TypedDict):
    """Where to go on from a run, as paths of the API."""

    self: str
    events: str
    websocket: str
    cancel: str


class RunState(TypedDict):
    """How a run stands."""

    run_id: str
    status: RunStatus
    links: RunLinks


class BatchedRun(RunState):
    """One of a batch; ``replayed`` says that an earlier request of the same key had started it."""

    replayed: bool


class RunSummary(RunState):
    """A run, as lists have it."""

    graph: str
    graph_id: str
    version: int
    trigger: Mapping[str, Any]
    author: str
    parent_run_id: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    error: dict[str, Any] | None


class Node(TypedDict):
    """How one node of a run stands; ``attempt`` counts from 1 and is 0 before the first."""

    status: NodeStatus
    attempt: int
    started_at: str | None
    ended_at: str | None
    error: dict[str, str] | None


class Run(RunSummary):
    """A run in full."""

    params: dict[str, Any]
    priority: int
    not_before: str | None
    live: bool
    trace_id: str
    outputs: Any
    nodes: Mapping[str, Node]


class RunRequest(TypedDict):
    """One run of a batch."""

    graph: str
    params: NotRequired[Mapping[str, Any]]
    priority: NotRequired[int]
    not_before: NotRequired[str]
    live: NotRequired[bool]
    idempotency_key: NotRequired[str]


class Event(TypedDict):
    """Something that happened in a run; docs/events.md has the types. Ignore unknown ones."""

    id: str
    run_id: str
    type: str
    node: str | None
    item: str | None
    attempt: int
    at: str
    data: dict[str, Any]


class StreamToken(TypedDict):
    """A token that reads the events of one run, and the paths with it."""

    token: str
    expires_at: str
    events: str
    websocket: str


class Watcher(TypedDict):
    """Someone who follows a run."""

    subject: str
    transport: Literal["sse", "websocket"]
    since: str


class Watchers(TypedDict):
    """Who follows a run; without ``complete``, only those of the API process that answered."""

    items: list[Watcher]
    complete: bool


class Notice(TypedDict):
    """What became of one entry of ``notify`` in the run's graph."""

    name: str
    status: Literal["pending", "delivered", "rejected"]
    attempts: int
    next_at: str | None
    started: str | None
    reason: str | None
    created_at: str
    ended_at: str | None


class NodeType(TypedDict):
    """A type of nodes."""

    type: str
    version: int
    description: str
    effects: Literal["none", "external"]
    runs_on: Literal["inline", "loop", "thread", "process", "platform"]
    secret_fields: list[str]


class NodeTypeDetail(NodeType):
    """A type of nodes, with the JSON Schemas of what it takes and gives."""

    with_schema: dict[str, Any]
    output_schema: dict[str, Any]
