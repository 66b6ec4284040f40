"""Nodes that cannot work where the graph wants its runs executed."""

from collections.abc import Iterator
from typing import Final

from foundation.errors import Fault
from graph_defs.catalogue import Catalogue
from graph_defs.json_values import pointer
from graph_defs.validation.outline import Outline

_WITHOUT_WORKER: Final = {"docker": "container", "kubernetes": "pod"}
"""By isolation, in what a run is executed instead of on a worker."""


def check_isolation(document: Outline, catalogue: Catalogue) -> Iterator[Fault]:
    """Nodes that need a worker, in a graph whose runs have a container or pod of their own."""
    place = _WITHOUT_WORKER.get(document.isolation or "")
    if place is None:
        return
    for name, node in document.nodes.items():
        node_type = catalogue.get(node.type or "")
        if node_type is not None and node_type.needs_worker:
            yield Fault(
                pointer(("nodes", name, "type")),
                "needs_worker",
                f"Only a worker can start what `{node_type.name}` runs: with `isolation: "
                f"{document.isolation}` the run is in a {place}, which has neither a Docker socket "
                "nor a token of the cluster.",
                "Use `isolation: warm` or `process`; what the node runs has a container or pod of "
                "its own all the same.",
            )
