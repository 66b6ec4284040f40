"""The walk over graphs with ``when`` and ``continue_on_error``, against a model of both."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import cast

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from dynamic_jobs.compiling.prepared import PreparedGraph
from dynamic_jobs.executing.policy_walk import Outcome, PolicyWalk
from dynamic_jobs.executing.walk import GraphWalk
from foundation.ids import NodeId
from graph_defs.document import When


@dataclass(frozen=True)
class Shaped:
    """What a walk reads of a node, and whether it fails when it runs."""

    needs: tuple[NodeId, ...]
    when: When = "succeeded"
    continue_on_error: bool = False
    fails: bool = False


@dataclass(frozen=True)
class Shape:
    nodes: Mapping[NodeId, Shaped]
    dependents: dict[NodeId, list[NodeId]] = field(default_factory=dict[NodeId, list[NodeId]])

    @classmethod
    def of(cls, nodes: Mapping[NodeId, Shaped]) -> "Shape":
        dependents: dict[NodeId, list[NodeId]] = {}
        for name, node in nodes.items():
            for need in node.needs:
                dependents.setdefault(need, []).append(name)
        return cls(nodes, dependents)

    def walk(self, done: Collection[NodeId] = (), failed: Collection[NodeId] = ()) -> PolicyWalk:
        return PolicyWalk(cast("PreparedGraph", self), list(self.nodes), done, failed)


@st.composite
def shapes(draw: st.DrawFn, *, plain: bool = False) -> Shape:
    nodes: dict[NodeId, Shaped] = {}
    for number in range(draw(st.integers(1, 14))):
        known = list(nodes)
        needs = draw(st.lists(st.sampled_from(known), unique=True, max_size=4)) if known else []
        runs = draw(st.sampled_from(["succeeded", "succeeded", "failed", "always"]))
        nodes[NodeId(f"n{number}")] = Shaped(
            tuple(needs),
            cast("When", "succeeded" if plain or not needs else runs),
            continue_on_error=not plain and draw(st.booleans()),
            fails=draw(st.booleans()),
        )
    return Shape.of(nodes)


def model(shape: Shape) -> dict[NodeId, Outcome]:
    """What the documentation says, word for word, node by node."""
    above = nx.DiGraph([(n, name) for name, node in shape.nodes.items() for n in node.needs])
    above.add_nodes_from(shape.nodes)
    ends: dict[NodeId, Outcome] = {}

    def is_fatal(name: NodeId) -> bool:
        return ends[name] == "failed" and not shape.nodes[name].continue_on_error

    for name, node in shape.nodes.items():  # needs come first in it
        match node.when:
            case "succeeded":
                runs = all(ends[n] != "skipped" and not is_fatal(n) for n in node.needs)
            case "failed":
                runs = any(is_fatal(n) for n in nx.ancestors(above, name))
            case "always":
                runs = True
        ends[name] = ("failed" if node.fails else "succeeded") if runs else "skipped"
    return ends


def play(
    shape: Shape, walk: PolicyWalk | GraphWalk, random: Random
) -> list[tuple[NodeId, Outcome]]:
    """Run what is ready and end it in any order; what was said of nodes, in order."""
    log: list[tuple[NodeId, Outcome]] = []
    log.extend((node, "skipped") for node in walk.skipped)
    under_way: list[NodeId] = []
    while under_way or walk.has_ready:
        under_way += walk.take(random.randrange(1, 4))
        node = under_way.pop(random.randrange(len(under_way)))
        fails = shape.nodes[node].fails
        log.append((node, "failed" if fails else "succeeded"))
        skipped: Sequence[NodeId] = walk.fail(node) if fails else walk.succeed(node)
        log.extend((each, "skipped") for each in skipped)
    return log


@given(shapes(), st.randoms(use_true_random=False))
def test_nodes_end_as_the_model_says(shape: Shape, random: Random) -> None:
    log = play(shape, shape.walk(), random)
    assert len(log) == len(shape.nodes), "each node ends once"
    assert dict(log) == model(shape)


@given(shapes(), st.randoms(use_true_random=False))
def test_a_node_starts_when_all_before_it_has_ended(shape: Shape, random: Random) -> None:
    """So a handler can say how each of them did."""
    log = [node for node, _ in play(shape, shape.walk(), random)]
    above = nx.DiGraph([(n, name) for name, node in shape.nodes.items() for n in node.needs])
    above.add_nodes_from(shape.nodes)
    ends = model(shape)
    for position, node in enumerate(log):
        if ends[node] != "skipped":
            assert nx.ancestors(above, node) <= set(log[:position])


@given(shapes(), st.randoms(use_true_random=False))
def test_from_any_part_of_its_log_it_ends_the_same_way(shape: Shape, random: Random) -> None:
    log = play(shape, shape.walk(), random)
    before = log[: random.randrange(len(log) + 1)]
    random.shuffle(before)
    done = [node for node, outcome in before if outcome == "succeeded"]
    failed = [node for node, outcome in before if outcome == "failed"]
    again = play(shape, shape.walk(done, failed), random)
    skipped = {node for node, outcome in before if outcome == "skipped"}
    assert skipped <= {node for node, outcome in again if outcome == "skipped"}
    assert not {node for node, _ in again} & {*done, *failed}, "nothing ends twice"
    assert {**dict(before), **dict(again)} == model(shape)


@given(shapes(plain=True), st.randoms(use_true_random=False))
def test_without_policies_it_is_the_shorter_walk(shape: Shape, random: Random) -> None:
    short = GraphWalk(cast("PreparedGraph", shape), list(shape.nodes))
    assert dict(play(shape, short, random)) == dict(play(shape, shape.walk(), random))


@given(shapes(), st.randoms(use_true_random=False), st.data())
def test_nodes_that_are_not_selected_count_as_succeeded(
    shape: Shape, random: Random, data: st.DataObject
) -> None:
    selected = data.draw(st.sets(st.sampled_from(sorted(shape.nodes))))
    part = Shape.of(
        {
            name: Shaped(
                tuple(need for need in node.needs if need in selected),
                node.when,
                continue_on_error=node.continue_on_error,
                fails=node.fails,
            )
            for name, node in shape.nodes.items()
            if name in selected
        }
    )
    walk = PolicyWalk(cast("PreparedGraph", shape), selected)
    assert dict(play(shape, walk, random)) == model(part)
