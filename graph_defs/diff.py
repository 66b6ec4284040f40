"""What changes from one document of a graph to another."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import jsonpatch

from graph_defs.json_values import Json, JsonObject, pointer

_MOST_VALUES: Final = 1_000
"""Arrays with more values in them are replaced as a whole: matching up what they have in common
takes time by the square."""


@dataclass(frozen=True, slots=True)
class NodeChanges:
    """Ids of nodes, each list in alphabetical order."""

    added: list[str]
    removed: list[str]
    changed: list[str]


@dataclass(frozen=True, slots=True)
class Diff:
    """``patch`` is an RFC 6902 JSON Patch that makes the second document of the first."""

    patch: list[dict[str, Any]]
    nodes: NodeChanges


def diff(before: JsonObject, after: JsonObject) -> Diff:
    """The difference of two documents, of which one or both may have faults."""
    old, new = _nodes(before), _nodes(after)
    changed = [node for node in old.keys() & new.keys() if not _same(old[node], new[node])]
    nodes = NodeChanges(
        sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys()), sorted(changed)
    )
    return Diff(list(_operations((), before, after)), nodes)


def _operations(path: tuple[str, ...], old: Json, new: Json) -> Iterator[dict[str, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() - new.keys()):
            yield {"op": "remove", "path": pointer((*path, key))}
        for key in sorted(new.keys() - old.keys()):
            yield {"op": "add", "path": pointer((*path, key)), "value": new[key]}
        for key in sorted(old.keys() & new.keys()):
            yield from _operations((*path, key), old[key], new[key])
    elif _same(old, new):
        return
    elif isinstance(old, list) and isinstance(new, list) and _is_small(old) and _is_small(new):
        for operation in jsonpatch.make_patch(old, new).patch:
            places = {name: pointer(path) + operation[name] for name in ("path", "from")
                      if name in operation}  # fmt: skip
            yield {**operation, **places}
    else:
        yield {"op": "replace", "path": pointer(path), "value": new}


def _same(old: Json, new: Json) -> bool:
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)  # True is no 1


def _is_small(value: Json) -> bool:
    """Whether it has at most ``_MOST_VALUES`` values, however deep."""
    seen, found = 0, [value]
    while found and seen <= _MOST_VALUES:
        each = found.pop()
        seen += 1
        if isinstance(each, dict | list):
            found.extend(each.values() if isinstance(each, dict) else each)
    return seen <= _MOST_VALUES


def _nodes(document: JsonObject) -> dict[str, Json]:
    nodes = document.get("nodes")
    return nodes if isinstance(nodes, dict) else {}
