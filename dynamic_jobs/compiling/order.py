"""Dagster's topological sorting, in linear time and without recursion.

Dagster sorts with the package ``toposort``, which goes through all remaining nodes once a level,
and so needs quadratic time for a chain. Before that it walks the edges by recursion, which may end
at Python's limit in a chain of a thousand. Both are private functions that Dagster looks up in a
module when it calls them; :func:`install` puts ours there, with the same results.
tests/dynamic_jobs/test_compile_order.py fails when Dagster looks them up no more.

Algorithm: A. B. Kahn, "Topological sorting of large networks", CACM 5(11), 1962.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import SimpleNamespace
from typing import TypeVar

from dagster._core import utils as dagster_utils
from dagster._core.definitions import graph_definition
from dagster._core.definitions.dependency import DependencyStructure, Node
from dagster._core.definitions.graph_definition import (
    CircularDependencyError,  # the one that Dagster expects
)

T = TypeVar("T")


def install() -> None:
    """Let Dagster sort with the functions of this module, in this process. May be repeated."""
    setattr(dagster_utils, "toposort_", SimpleNamespace(toposort=toposort))  # noqa: B010
    setattr(graph_definition, "create_adjacency_lists", create_adjacency_lists)  # noqa: B010


def toposort(data: Mapping[T, AbstractSet[T]]) -> Iterator[set[T]]:
    """The levels of a graph: first what needs nothing, then what needs only that, and so on.

    ``data`` maps each item to what it needs; an item that needs itself does not count as needed.

    Raises:
        CircularDependencyError: after the last level, with what is left.
    """
    waiting = {item: len(needs) - (item in needs) for item, needs in data.items()}
    dependents: dict[T, list[T]] = {}
    for item, needs in data.items():
        for need in needs:
            if need != item:
                dependents.setdefault(need, []).append(item)
    level = {item for item, count in waiting.items() if count == 0}
    level.update(need for need in dependents if need not in waiting)
    while level:
        yield level
        following: set[T] = set()
        for item in level:
            for dependent in dependents.get(item, ()):
                waiting[dependent] -= 1
                if waiting[dependent] == 0:
                    following.add(dependent)
        level = following
    left = {item for item, count in waiting.items() if count > 0}
    if left:
        raise CircularDependencyError({item: set(data[item]) & left - {item} for item in left})


def create_adjacency_lists(
    nodes: Sequence[Node], dep_structure: DependencyStructure
) -> tuple[Mapping[str, set[str]], Mapping[str, set[str]]]:
    """For each node the names of those that need it, and of those that it needs."""
    forward: dict[str, set[str]] = {node.name: set() for node in nodes}
    backward: dict[str, set[str]] = {node.name: set() for node in nodes}
    for name, needs in backward.items():
        for output in dep_structure.all_upstream_outputs_from_node(name):
            need = output.node.name
            if need in forward:
                forward[need].add(name)
                needs.add(need)
    return forward, backward
