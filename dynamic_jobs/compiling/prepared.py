"""A graph version made ready to run: types looked up, expressions compiled, edges both ways."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

from foundation.errors import GraphwrightError
from foundation.ids import NodeId
from graph_defs.catalogue import Catalogue
from graph_defs.document import GraphDocument, Retry, When
from graph_defs.expressions import Evaluator, Template
from graph_defs.versions import GraphVersion
from node_types.base import NodeType


class NodeTypeUnavailable(GraphwrightError):
    """This process lacks a node type of the graph, or has another version of it."""

    code: ClassVar[str] = "node_type_unavailable"
    status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True)
class PreparedNode:
    id: NodeId
    type: NodeType[Any, Any]
    given: Template
    """The node's ``with``."""
    needs: tuple[NodeId, ...]
    retry: Retry | None = None
    timeout: timedelta | None = None
    """How long one attempt may take."""
    continue_on_error: bool = False
    when: When = "succeeded"


@dataclass(frozen=True, slots=True)
class PreparedGraph:
    """Immutable, and shared by all runs of the version in this process."""

    version: GraphVersion
    document: GraphDocument
    nodes: Mapping[NodeId, PreparedNode]
    dependents: Mapping[NodeId, tuple[NodeId, ...]]
    outputs: Template
    has_policies: bool = False
    """Whether some node runs after failures, or may fail without failing the run."""
    timeout: timedelta | None = None
    """How long a run may take from its first start."""


def prepare(version: GraphVersion, catalogue: Catalogue, evaluator: Evaluator) -> PreparedGraph:
    """Prepare a stored, hence valid, version.

    Raises :class:`NodeTypeUnavailable` where the catalogue is not the one it was published with.
    """
    for name, wanted in version.node_types.items():
        here = catalogue.get(name)
        if here is None or here.version != wanted:
            raise NodeTypeUnavailable(
                f"node type {name!r} version {wanted} is not installed here",
                hint="run a worker of the release that published the graph, or publish it again",
                graph_version_id=version.graph_version_id,
            )
    document = GraphDocument.model_validate(version.document)
    nodes: dict[NodeId, PreparedNode] = {}
    dependents: defaultdict[NodeId, list[NodeId]] = defaultdict(list)
    for name, node in document.nodes.items():
        node_id = NodeId(name)
        needs = tuple(NodeId(need) for need in node.needs)
        nodes[node_id] = PreparedNode(
            node_id,
            catalogue[node.type],
            evaluator.compile(node.given),
            needs,
            node.retry,
            _duration(node.timeout_seconds),
            node.continue_on_error,
            node.when,
        )
        for need in needs:
            dependents[need].append(node_id)
    return PreparedGraph(
        version=version,
        document=document,
        nodes=nodes,
        dependents={need: tuple(after) for need, after in dependents.items()},
        outputs=evaluator.compile(document.outputs),
        has_policies=any(
            node.continue_on_error or node.when != "succeeded" for node in nodes.values()
        ),
        timeout=_duration(document.timeout_seconds),
    )


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
