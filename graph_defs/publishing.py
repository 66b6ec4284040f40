"""From a document's text to what the graph store publishes."""

from collections.abc import Mapping
from dataclasses import dataclass

from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.document import GraphDocument
from graph_defs.expressions import Evaluator
from graph_defs.fingerprint import fingerprint
from graph_defs.json_values import JsonObject
from graph_defs.parsing import read
from graph_defs.validation import find_faults, invalid


@dataclass(frozen=True, slots=True)
class Publishable:
    """A valid document, and what is stored with it."""

    document: JsonObject
    fingerprint: str
    node_types: Mapping[str, int]
    """The node types that it uses, each with its version in this installation."""


def check(
    source: bytes | str, catalogue: Catalogue, limits: Limits, evaluator: Evaluator
) -> Publishable:
    """Read and validate a document, in JSON or YAML.

    Raises:
        TooLarge: more bytes than ``limits.max_document_bytes``.
        Invalid: with every fault, those of its text and those of what it says.
    """
    reading = read(source, limits)
    if reading.document is None:
        raise invalid(list(reading.faults))
    found = find_faults(reading.document, catalogue, limits, evaluator)
    if faults := [*reading.faults, *found]:
        raise invalid(faults)
    graph = GraphDocument.model_validate(reading.document)
    used = sorted({node.type for node in graph.nodes.values()})
    node_types = {name: catalogue[name].version for name in used}
    return Publishable(reading.document, fingerprint(reading.document), node_types)
