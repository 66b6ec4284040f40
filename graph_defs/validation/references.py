"""Expressions: whether they compile, and whether what they refer to is there when they run."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from foundation.errors import Fault
from graph_defs.catalogue import Catalogue
from graph_defs.expressions import Evaluator, Template
from graph_defs.json_values import Json, Path, pointer, strings
from graph_defs.suggestions import Suggester
from graph_defs.validation.edges import Edges
from graph_defs.validation.outline import NodeOutline, Outline

_KNOWN_BEFORE: Final = frozenset({"params", "trigger"})
"""What is known of a run before it starts."""


def check_references(
    document: Outline,
    edges: Edges,
    evaluator: Evaluator,
    suggester: Suggester,
    catalogue: Catalogue,
) -> Iterator[Fault]:
    """Faults of the expressions in ``with``, in outputs and in the concurrency key.

    A node may refer to what is upstream of it; outputs, which are made at the end, to every node;
    the key, which is made before the run, to none. To secrets, only the fields of nodes may refer
    whose type says so.
    """
    for name, node in document.nodes.items():
        for path, template in _templates(node.given, ("nodes", name, "with"), evaluator):
            yield from _located(template, path)
            if template.secrets:
                yield from _check_field(path, node, catalogue)
            for reference in sorted(template.references):
                if reference not in document.nodes:
                    yield _unknown(path, reference, document, suggester)
                elif not edges.is_upstream(reference, of=name):
                    yield _not_upstream(path, reference, name)
    for path, template in _templates(document.outputs, ("outputs",), evaluator):
        yield from _located(template, path)
        if template.secrets:
            yield secret_not_allowed(pointer(path))
        for reference in sorted(template.references - document.nodes.keys()):
            yield _unknown(path, reference, document, suggester)
    yield from _check_key(document.concurrency_key, evaluator)


def _check_key(key: str | None, evaluator: Evaluator) -> Iterator[Fault]:
    if key is None:
        return
    path = ("concurrency", "key")
    template = evaluator.compile(key)
    yield from _located(template, path)
    if template.secrets:
        yield secret_not_allowed(pointer(path))
    for root in sorted(template.roots - _KNOWN_BEFORE - {"secrets"}):
        yield Fault(
            pointer(path),
            "not_known_yet",
            f"The key is worked out before the run starts, when there is no `{root}` yet.",
            "It may refer to `params` and `trigger`.",
        )


def secret_not_allowed(at: str) -> Fault:
    """The fault of an expression that names a secret where none may stand."""
    return Fault(
        at,
        "secret_not_allowed",
        "The expression reads a secret, and what it gives is stored or shown.",
        "Secrets may stand in the fields of nodes that take them, such as the headers of an "
        "`http.request`.",
    )


def _check_field(path: Path, node: NodeOutline, catalogue: Catalogue) -> Iterator[Fault]:
    """``path`` is that of a string in the node's ``with`` which reads a secret."""
    node_type = catalogue.get(node.type or "")
    if node_type is None or path[3] in node_type.secret_fields:
        return
    taken = ", ".join(f"`{field}`" for field in sorted(node_type.secret_fields))
    yield replace(
        secret_not_allowed(pointer(path)),
        message=f"`{path[3]}` of `{node_type.name}` takes no secrets.",
        hint=f"{taken} may hold secrets."
        if taken
        else "Use the secret in the node that needs it, such as an `http.request`.",
    )


def _templates(value: Json, base: Path, evaluator: Evaluator) -> Iterator[tuple[Path, Template]]:
    """Each string with expressions, compiled."""
    for path, text in strings(value, base):
        if "${{" in text:
            yield path, evaluator.compile(text)


def _located(template: Template, path: Path) -> Iterator[Fault]:
    """What is wrong with the expressions of the string at ``path``."""
    for fault in template.faults:
        yield replace(fault, pointer=pointer(path))


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
