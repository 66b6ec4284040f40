"""Which names graphs, nodes, outputs and labels may have."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

GRAPH_NAME: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NODE_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
LABEL_NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?"

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# fmt: off
RESERVED: Final = frozenset({
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
    "let", "loop", "namespace", "null", "package", "return", "true", "var", "void", "while",
})
# fmt: on
"""Words that CEL keeps for itself, so that ``nodes.<id>`` would not parse (CEL specification,
"Syntax": the keywords and the reserved identifiers)."""


def is_graph_name(name: str) -> bool:
    """Whether a graph may have this name; one shaped like a UUID would be taken for an id."""
    return re.fullmatch(GRAPH_NAME, name) is not None and not _UUID.fullmatch(name)


def is_node_name(name: str) -> bool:
    """Whether a node may have this name."""
    return re.fullmatch(NODE_NAME, name) is not None and name not in RESERVED


def _check_graph_name(name: str) -> str:
    if is_graph_name(name):
        return name
    if _UUID.fullmatch(name):
        raise _bad(name, "A graph's name must not look like a UUID, since ids do.")
    raise _bad(
        name,
        "A graph's name has 1 to 63 lower-case letters, digits and hyphens, no hyphen at an end.",
    )


def _check_node_name(name: str) -> str:
    if name in RESERVED:
        raise PydanticCustomError(
            "reserved_name",
            "`{name}` is a word of the expression language.",
            {"name": name, "hint": f"Name it `{name}_`, for instance."},
        )
    return _check_output_name(name)


def _check_output_name(name: str) -> str:
    if re.fullmatch(NODE_NAME, name):
        return name
    raise _bad(
        name,
        "A name has 1 to 63 letters, digits and underscores, and does not start with a digit.",
    )


def _check_label_name(name: str) -> str:
    if re.fullmatch(LABEL_NAME, name):
        return name
    raise _bad(
        name,
        "A label's name has 1 to 63 letters, digits, `.`, `_`, `/` and `-`, "
        "and starts and ends with a letter or digit.",
    )


def _bad(name: str, rule: str) -> PydanticCustomError:
    shown = name if len(name) <= 80 else f"{name[:80]}…"
    return PydanticCustomError(
        "bad_name", "`{name}` is not a name that it may have.", {"name": shown, "hint": rule}
    )


GraphName = Annotated[
    str,
    AfterValidator(_check_graph_name),
    WithJsonSchema({"type": "string", "pattern": f"^{GRAPH_NAME}$"}),
]
NodeName = Annotated[
    str,
    AfterValidator(_check_node_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NODE_NAME}$"}),
]
OutputName = Annotated[
    str,
    AfterValidator(_check_output_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NODE_NAME}$"}),
]
LabelName = Annotated[
    str,
    AfterValidator(_check_label_name),
    WithJsonSchema({"type": "string", "pattern": f"^{LABEL_NAME}$"}),
]
