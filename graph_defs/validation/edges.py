"""What nodes need: whether it is there, what waits for itself, and what is upstream of what.

networkx is imported where it is used: it takes 12 MB, and a worker, which only executes graphs,
never gets there.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from foundation.errors import Fault
from graph_defs.json_values import pointer
from graph_defs.suggestions import Suggester
from graph_defs.validation.outline import NodeOutline

if TYPE_CHECKING:
    import networkx as nx

MAX_CYCLES = 100
MAX_NAMED = 200
_MAX_WORK = 500_000
"""Edges to go through in search of more cycles, about a second's worth."""


class Edges:
    """The needs of a graph's nodes."""

    def __init__(self, nodes: Mapping[str, NodeOutline]) -> None:
        import networkx as nx

        self._nodes = nodes
        self._graph: nx.DiGraph[str] = nx.DiGraph()
        self._graph.add_nodes_from(nodes)
        for name, node in nodes.items():
            self._graph.add_edges_from(
                (need, name) for _, need in node.needs if need in nodes and need != name
            )

    def check(self, suggester: Suggester) -> Iterator[Fault]:
        """Needs that are repeated, unknown or the node itself; and cycles, each named in full."""
        for name, node in self._nodes.items():
            seen: set[str] = set()
            for index, need in node.needs:
                if need in seen or need == name or need not in self._nodes:
                    at = pointer(("nodes", name, "needs", index))
                    yield self._need_fault(at, name, need, suggester, repeated=need in seen)
                seen.add(need)
        yield from self._check_cycles()

    def is_upstream(self, name: str, of: str) -> bool:
        """Whether ``of`` needs ``name``, itself or through others."""
        if self._graph.has_edge(name, of):
            return True
        position = self._components
        return bool(self._ancestors[position[of]] >> position[name] & 1)

    def _need_fault(
        self, at: str, name: str, need: str, suggester: Suggester, *, repeated: bool
    ) -> Fault:
        if repeated:
            return Fault(at, "duplicate_need", f"`{need}` is listed twice.", "Remove one of them.")
        if need == name:
            return Fault(at, "self_need", f"`{name}` needs itself.", "Remove it from `needs`.")
        hint = suggester.did_you_mean(need, self._nodes)
        return Fault(at, "missing_need", f"There is no node `{need}`.", hint)

    def _check_cycles(self) -> Iterator[Fault]:
        """Shortest cycles, one after the other, each cut where it closes, until none is left.

        So whoever breaks every cycle that is named has a graph without cycles; naming all simple
        cycles instead could take for ever, since there may be exponentially many.
        """
        import networkx as nx

        pending = [c for c in nx.strongly_connected_components(self._graph) if len(c) > 1]
        if not pending:
            return
        order = {name: number for number, name in enumerate(self._nodes)}
        pending.sort(key=lambda component: min(order[name] for name in component), reverse=True)
        found = work = 0
        graph: nx.DiGraph[str] = nx.DiGraph(self._graph.edges)
        while pending and found < MAX_CYCLES and work < _MAX_WORK:
            component = pending.pop()
            part = graph.subgraph(component).copy()
            cycle = _shortest_cycle(part, min(component, key=order.__getitem__))
            yield self._cycle_fault(cycle)
            part.remove_edge(cycle[-1], cycle[0])
            graph.remove_edge(cycle[-1], cycle[0])
            pending.extend(c for c in nx.strongly_connected_components(part) if len(c) > 1)
            found += 1
            work += part.number_of_edges()

    def _cycle_fault(self, cycle: list[str]) -> Fault:
        first, last = cycle[0], cycle[-1]
        index = next(index for index, need in self._nodes[first].needs if need == last)
        named = [*cycle, first]
        if len(named) > MAX_NAMED:
            named[MAX_NAMED // 2 : -MAX_NAMED // 2] = [f"({len(named) - MAX_NAMED:,} more)"]
        return Fault(
            pointer(("nodes", first, "needs", index)),
            "cycle",
            f"Nodes wait for each other: {' -> '.join(named)}.",
            f"Break it: for instance, remove `{last}` from the needs of `{first}`.",
        )

    @cached_property
    def _components(self) -> dict[str, int]:
        """Each node's strongly connected component, numbered in topological order."""
        import networkx as nx

        components = list(nx.strongly_connected_components(self._graph))  # sinks come first
        last = len(components) - 1
        return {name: last - number for number, c in enumerate(components) for name in c}

    @cached_property
    def _ancestors(self) -> list[int]:
        """For each component, its ancestors and, if it is a cycle, itself, as a set of bits."""
        position = self._components
        members: list[list[str]] = [[] for _ in range(max(position.values(), default=-1) + 1)]
        for name, number in position.items():
            members[number].append(name)
        ancestors: list[int] = []
        for number, names in enumerate(members):
            bits = 1 << number if len(names) > 1 else 0
            for need in {position[n] for name in names for n in self._graph.predecessors(name)}:
                if need != number:
                    bits |= ancestors[need] | 1 << need
            ancestors.append(bits)
        return ancestors


def _shortest_cycle(graph: "nx.DiGraph[str]", start: str) -> list[str]:
    """The shortest cycle through ``start``, which is on one, from ``start`` on."""
    before: dict[str, str] = {}
    pending = deque([start])
    while pending:
        name = pending.popleft()
        for following in graph.successors(name):
            if following == start:
                cycle = [name]
                while cycle[-1] != start:
                    cycle.append(before[cycle[-1]])
                return cycle[::-1]
            if following not in before:
                before[following] = name
                pending.append(following)
    raise AssertionError("a strongly connected component has a cycle through each of its nodes")
