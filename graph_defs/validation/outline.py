"""What can be read of a document that may have faults: checks after the first go by this."""

from dataclasses import dataclass

from graph_defs.json_values import Json, JsonObject


@dataclass(frozen=True, slots=True)
class NodeOutline:
    """The parts of a node that have the right type; others are as if left out."""

    type: str | None
    needs: tuple[tuple[int, str], ...]
    """Each with its index in the document."""
    given: JsonObject | None
    """``with``; None where it is something else than an object."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The parts of a document that have the right type."""

    params: JsonObject | None
    nodes: dict[str, NodeOutline]
    outputs: JsonObject
    concurrency_key: str | None
    isolation: str | None
    triggers: dict[str, JsonObject]
    notify: dict[str, JsonObject]


def outline(document: JsonObject) -> Outline:
    """Read what is readable."""
    params = document.get("params")
    nodes = _object(document.get("nodes"))
    key, isolation = _object(document.get("concurrency")).get("key"), document.get("isolation")
    return Outline(
        params=params if isinstance(params, dict) else None,
        nodes={name: _node(node) for name, node in nodes.items() if isinstance(node, dict)},
        outputs=_object(document.get("outputs")),
        concurrency_key=key if isinstance(key, str) else None,
        isolation=isolation if isinstance(isolation, str) else None,
        triggers=_objects(document.get("triggers")),
        notify=_objects(document.get("notify")),
    )


def _node(node: JsonObject) -> NodeOutline:
    kind, needs, given = node.get("type"), node.get("needs"), node.get("with", {})
    named = enumerate(needs) if isinstance(needs, list) else ()
    return NodeOutline(
        type=kind if isinstance(kind, str) else None,
        needs=tuple((index, need) for index, need in named if isinstance(need, str)),
        given=given if isinstance(given, dict) else None,
    )


def _objects(value: Json) -> dict[str, JsonObject]:
    return {name: each for name, each in _object(value).items() if isinstance(each, dict)}


def _object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}
