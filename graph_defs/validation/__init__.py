"""Validation: pure, without Dagster, and every fault in one answer."""

from collections.abc import Iterator

from foundation.errors import Fault, Invalid
from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.document import GraphDocument
from graph_defs.expressions import Evaluator
from graph_defs.json_values import JsonObject
from graph_defs.params import check_params_schema
from graph_defs.suggestions import Suggester
from graph_defs.validation.edges import Edges
from graph_defs.validation.given import check_given
from graph_defs.validation.isolation import check_isolation
from graph_defs.validation.outline import outline
from graph_defs.validation.references import check_references
from graph_defs.validation.structure import check_structure
from graph_defs.validation.triggers import check_triggers

__all__ = ["MAX_FAULTS", "find_faults", "invalid", "validate"]

MAX_FAULTS = 1_000
"""Faults in one answer; a last one says that there are more."""


def validate(
    document: JsonObject,
    catalogue: Catalogue,
    limits: Limits,
    evaluator: Evaluator | None = None,
) -> GraphDocument:
    """The model of a document, if it has no fault. docs/graph-document.md lists the codes.

    Args:
        document: what :func:`graph_defs.parsing.parse` returns.
        evaluator: compiles the expressions, and keeps them; by default one for this call.

    Raises:
        Invalid: with every fault that was found.
    """
    faults = find_faults(document, catalogue, limits, evaluator)
    if faults:
        raise invalid(faults)
    return GraphDocument.model_validate(document)


def find_faults(
    document: JsonObject,
    catalogue: Catalogue,
    limits: Limits,
    evaluator: Evaluator | None = None,
) -> list[Fault]:
    """Every fault of a document, at most :data:`MAX_FAULTS` and one that says that there are more.

    What can be checked is, also where other parts of the document have faults.
    """
    if evaluator is None:
        with Evaluator(limits) as own:
            return find_faults(document, catalogue, limits, own)
    faults: list[Fault] = []
    for fault in _find(document, catalogue, limits, evaluator):
        if len(faults) == MAX_FAULTS:
            faults.append(Fault("", "too_many_faults", "There are more faults than these."))
            break
        faults.append(fault)
    return faults


def invalid(faults: list[Fault]) -> Invalid:
    """The error for a document with these faults."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
    return Invalid(f"The graph document has {count}.", faults)


def _find(
    document: JsonObject, catalogue: Catalogue, limits: Limits, evaluator: Evaluator
) -> Iterator[Fault]:
    suggester = Suggester()
    yield from check_structure(document, limits, suggester)
    readable = outline(document)
    if readable.params is not None:
        yield from check_params_schema(readable.params, suggester)
    if len(readable.nodes) > limits.max_nodes:
        return  # the limit is there to bound what follows
    yield from check_given(readable.nodes, catalogue, suggester)
    yield from check_isolation(readable, catalogue)
    edges = Edges(readable.nodes)
    yield from edges.check(suggester)
    yield from check_references(readable, edges, evaluator, suggester, catalogue)
    yield from check_triggers(readable, evaluator)
