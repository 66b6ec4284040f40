"""Expressions: whether they compile, and whether what they refer to is there when they run."""

from collections.abc import Iterator
from dataclasses import replace

from foundation.errors import Fault
from graph_defs.expressions import Evaluator
from graph_defs.json_values import Json, Path, pointer, strings
from graph_defs.suggestions import Suggester
from graph_defs.validation.edges import Edges
from graph_defs.validation.outline import Outline


def check_references(
    document: Outline, edges: Edges, evaluator: Evaluator, suggester: Suggester
) -> Iterator[Fault]:
    """Faults of the expressions in ``with`` and in outputs.

    A node may refer to what is upstream of it; outputs, which are made at the end, to every node.
    """
    for name, node in document.nodes.items():
        for path, references in _compile(node.given, ("nodes", name, "with"), evaluator):
            if isinstance(references, Fault):
                yield references
                continue
            for reference in sorted(references):
                if reference not in document.nodes:
                    yield _unknown(path, reference, document, suggester)
                elif not edges.is_upstream(reference, of=name):
                    yield _not_upstream(path, reference, name)
    for path, references in _compile(document.outputs, ("outputs",), evaluator):
        if isinstance(references, Fault):
            yield references
            continue
        for reference in sorted(references - document.nodes.keys()):
            yield _unknown(path, reference, document, suggester)


def _compile(
    value: Json, base: Path, evaluator: Evaluator
) -> Iterator[tuple[Path, frozenset[str] | Fault]]:
    """For each string with expressions the nodes that it refers to, or what is wrong with it."""
    for path, text in strings(value, base):
        if "${{" not in text:
            continue
        template = evaluator.compile(text)
        for fault in template.faults:
            yield path, replace(fault, pointer=pointer(path))
        if template.references:
            yield path, template.references


def _unknown(path: Path, reference: str, document: Outline, suggester: Suggester) -> Fault:
    return Fault(
        pointer(path),
        "unknown_node_reference",
        f"The expression refers to `{reference}`, and there is no such node.",
        suggester.did_you_mean(reference, document.nodes),
    )


def _not_upstream(path: Path, reference: str, name: str) -> Fault:
    if reference == name:
        message = f"`{name}` refers to its own output, which is not there before it has run."
        return Fault(pointer(path), "not_upstream", message, "Refer to a node that it needs.")
    return Fault(
        pointer(path),
        "not_upstream",
        f"The expression refers to `{reference}`, which `{name}` does not wait for.",
        f"Add `{reference}` to the needs of `{name}`.",
    )
