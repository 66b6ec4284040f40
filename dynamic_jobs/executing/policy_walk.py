"""The walk over a graph in which some nodes look at how others ended.

Such are nodes that run after a failure, or in any case, and nodes whose failure fails nothing else
(``when``, ``continue_on_error``). All other graphs take the shorter walk of ``walk.py``.

What becomes of a node follows from how the nodes before it ended, and not from the order in which
they did. For that, a node that may run after a failure waits until everything before it has
*settled*: it has ended or been skipped, and so has everything before it in turn. So a run that goes
on elsewhere, from any part of its log, ends the same way.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Literal, TypeAlias

from dynamic_jobs.compiling.prepared import PreparedGraph
from foundation.ids import NodeId

Outcome: TypeAlias = Literal["succeeded", "failed", "skipped"]


class PolicyWalk:
    """Keeps count of what each node still waits for. Every step costs time in its edges only."""

    def __init__(
        self,
        graph: PreparedGraph,
        selected: Collection[NodeId],
        done: Collection[NodeId] = (),
        failed: Collection[NodeId] = (),
    ) -> None:
        """``selected`` are the nodes to run; some of them may have succeeded or failed already.

        ``skipped`` are those that will not run because of how these ended. Nodes that are not
        selected count as succeeded.
        """
        self._nodes, self._dependents = graph.nodes, graph.dependents
        todo = set(selected)
        self._unsettled = {
            node: sum(need in todo for need in graph.nodes[node].needs)
            for node in graph.nodes
            if node in todo
        }
        """What has not settled, with how many of its needs have not."""
        self._outcomes: dict[NodeId, Outcome] = {}
        for node in todo.intersection(done):
            self._outcomes[node] = "succeeded"
        for node in todo.intersection(failed):
            self._outcomes[node] = "failed"
        self._after_failure: set[NodeId] = set()
        """Nodes with a failure before them that the run is to fail by."""
        self._ready: deque[NodeId] = deque()
        self.skipped: list[NodeId] = []
        ended = list(self._outcomes)
        for node, unsettled in self._unsettled.items():
            if unsettled == 0 and node not in self._outcomes:
                ended += self._decide(node, self.skipped)
        self._spread(ended, self.skipped)

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    def take(self, at_most: int) -> Iterator[NodeId]:
        """Hand out ready nodes, in the order in which they became ready."""
        while self._ready and at_most > 0:
            at_most -= 1
            yield self._ready.popleft()

    def succeed(self, node: NodeId) -> list[NodeId]:
        """A node has completed. The nodes that will not run because of that, each named once."""
        return self._end(node, "succeeded")

    def fail(self, node: NodeId) -> list[NodeId]:
        """A node has failed. The nodes that will not run because of that, each named once."""
        return self._end(node, "failed")

    def _end(self, node: NodeId, outcome: Outcome) -> list[NodeId]:
        skipped: list[NodeId] = []
        self._outcomes[node] = outcome
        self._spread([node], skipped)
        return skipped

    def _spread(self, ended: Iterable[NodeId], skipped: list[NodeId]) -> None:
        """What follows from nodes whose outcome is new, or whose needs have just settled."""
        front = deque(ended)
        while front:
            node = front.popleft()
            if node not in self._unsettled:
                continue  # it was named twice
            if not self._passes(node):
                front.extend(self._skip_dependents(node, skipped))
            if self._unsettled[node] == 0:
                front.extend(self._settle(node, skipped))

    def _passes(self, node: NodeId) -> bool:
        """Whether the nodes that wait for its success may go on."""
        match self._outcomes[node]:
            case "succeeded":
                return True
            case "failed":
                return self._nodes[node].continue_on_error
            case "skipped":
                return False

    def _skip_dependents(self, node: NodeId, skipped: list[NodeId]) -> Iterator[NodeId]:
        for dependent in self._dependents.get(node, ()):
            if (
                dependent in self._unsettled
                and dependent not in self._outcomes
                and self._nodes[dependent].when == "succeeded"
            ):
                yield from self._skip(dependent, skipped)

    def _settle(self, node: NodeId, skipped: list[NodeId]) -> Iterator[NodeId]:
        del self._unsettled[node]
        failed = self._outcomes[node] == "failed" and not self._nodes[node].continue_on_error
        tell = failed or node in self._after_failure
        for dependent in self._dependents.get(node, ()):
            if dependent not in self._unsettled:
                continue
            if tell:
                self._after_failure.add(dependent)
            self._unsettled[dependent] -= 1
            if self._unsettled[dependent] == 0:
                if dependent in self._outcomes:
                    yield dependent
                else:
                    yield from self._decide(dependent, skipped)

    def _decide(self, node: NodeId, skipped: list[NodeId]) -> Iterator[NodeId]:
        """All before the node has settled, and nothing has been found that it would not run by."""
        if self._nodes[node].when == "failed" and node not in self._after_failure:
            yield from self._skip(node, skipped)
        else:
            self._ready.append(node)

    def _skip(self, node: NodeId, skipped: list[NodeId]) -> Iterator[NodeId]:
        self._outcomes[node] = "skipped"
        skipped.append(node)
        yield node
