"""What nodes are given: that their type exists, and that ``with`` is what it asks for."""

import re
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from foundation.errors import Fault
from graph_defs.catalogue import Catalogue
from graph_defs.json_values import Json, pointer, strings
from graph_defs.suggestions import Suggester
from graph_defs.validation.outline import NodeOutline
from graph_defs.validation.translation import translate

_EXPRESSION = re.compile(r"(?<!\$)\$\{\{")  # `$${{` stands for the characters themselves


def check_given(
    nodes: Mapping[str, NodeOutline], catalogue: Catalogue, suggester: Suggester
) -> Iterator[Fault]:
    """Node types that do not exist, and fields of ``with`` that do not fit the type's model.

    A value that holds an expression is not known before the run, so only the names of fields are
    checked around it; the worker checks the rest once it is evaluated.
    """
    for name, node in nodes.items():
        if node.type is None:
            continue
        node_type = catalogue.get(node.type)
        if node_type is None:
            hint = suggester.did_you_mean(node.type, catalogue)
            yield Fault(
                pointer(("nodes", name, "type")),
                "unknown_node_type",
                f"There is no node type `{node.type}`.",
                hint or f"Known are {', '.join(catalogue)}.",
            )
        elif node.given is not None:
            try:
                node_type.With.model_validate(node.given)
            except ValidationError as error:
                base = ("nodes", name, "with")
                yield from translate(
                    error, node_type.With, node.given, base, suggester, holds_expression
                )


def holds_expression(value: Json) -> bool:
    """Whether a value is, or holds, a string with an expression."""
    return any(_EXPRESSION.search(text) for _, text in strings(value))
