"""The walk over a graph: which nodes may start, which never will. Pure, and the same everywhere.

Here every node waits for the success of all that it needs; ``policy_walk.py`` is for other graphs.
"""

from collections import deque
from collections.abc import Collection, Iterator, Sequence

from dynamic_jobs.compiling.prepared import PreparedGraph
from foundation.ids import NodeId


class GraphWalk:
    """Keeps count of what each node still waits for. Every step costs time in its edges only."""

    def __init__(
        self,
        graph: PreparedGraph,
        selected: Collection[NodeId],
        done: Collection[NodeId] = (),
        failed: Collection[NodeId] = (),
    ) -> None:
        """``selected`` are the nodes to run; some of them may have succeeded or failed already.

        ``skipped`` are those that will not run because of these failures.
        """
        self._dependents = graph.dependents
        todo = set(selected).difference(done)
        self._waiting = {
            node: sum(need in todo for need in graph.nodes[node].needs)
            for node in graph.nodes
            if node in todo
        }
        for node in failed:
            self._waiting.pop(node, None)
        self.skipped = [node for each in failed for node in self.fail(each)]
        self._ready = deque(node for node, count in self._waiting.items() if count == 0)

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    def take(self, at_most: int) -> Iterator[NodeId]:
        """Hand out ready nodes, in the order in which they became ready."""
        while self._ready and at_most > 0:
            at_most -= 1
            yield self._ready.popleft()

    def succeed(self, node: NodeId) -> Sequence[NodeId]:
        """A node has completed: its dependents wait for one node less. None of them is skipped."""
        for dependent in self._dependents.get(node, ()):
            if dependent in self._waiting:
                self._waiting[dependent] -= 1
                if self._waiting[dependent] == 0:
                    self._ready.append(dependent)
        return ()

    def fail(self, node: NodeId) -> list[NodeId]:
        """A node has failed: nothing downstream of it will run. Those nodes, each named once."""
        skipped: list[NodeId] = []
        front = deque([node])
        while front:
            for dependent in self._dependents.get(front.popleft(), ()):
                if self._waiting.pop(dependent, None) is not None:
                    skipped.append(dependent)
                    front.append(dependent)
        return skipped
