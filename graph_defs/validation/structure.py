"""Whether a document has the shape of one: its models, in our words."""

from collections.abc import Iterator

from pydantic import ValidationError

from foundation.errors import Fault
from foundation.settings import Limits
from graph_defs.document import API_VERSION, KIND, GraphDocument
from graph_defs.json_values import JsonObject
from graph_defs.suggestions import Suggester
from graph_defs.validation.translation import translate

_FIXED = {
    "/apiVersion": ("unsupported_api_version", API_VERSION),
    "/kind": ("unsupported_kind", KIND),
}


def check_structure(document: JsonObject, limits: Limits, suggester: Suggester) -> Iterator[Fault]:
    """Fields and types, names, version and kind, and the number of nodes."""
    nodes = document.get("nodes")
    if isinstance(nodes, dict) and len(nodes) > limits.max_nodes:
        yield Fault(
            "/nodes",
            "too_many_nodes",
            f"The graph has {len(nodes):,} nodes; {limits.max_nodes:,} are allowed.",
            "Split the graph, or ask the operator to raise GRAPHWRIGHT_MAX_NODES.",
        )
    try:
        GraphDocument.model_validate(document)
    except ValidationError as error:
        for fault in translate(error, GraphDocument, document, (), suggester):
            yield _reword(fault)


def _reword(fault: Fault) -> Fault:
    if fault.code == "bad_value" and fault.pointer in _FIXED:
        code, wanted = _FIXED[fault.pointer]
        field = fault.pointer[1:]
        return Fault(fault.pointer, code, f"This {field} is not known.", f"Use `{wanted}`.")
    if fault.code == "bad_value" and fault.pointer == "/nodes":
        return Fault("/nodes", "no_nodes", "A graph needs at least one node.")
    return fault
