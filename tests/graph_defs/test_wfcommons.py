import json
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import node_types
from foundation.errors import Invalid
from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.json_values import Json, JsonObject
from graph_defs.parsing import parse
from graph_defs.validation import validate
from graph_defs.wfcommons import convert
from graph_defs.yaml_text import write_yaml

FOLDER = Path(__file__).parents[2] / "examples" / "wfcommons"
SHAPES = {
    "helloworld-chain-5-chameleon": (5, 4),
    "blast-chameleon-small-001": (43, 120),
    "1000genome-chameleon-2ch-100k-001": (52, 76),
    "rnaseq-dirt02-001": (197, 451),
    "montage-chameleon-2mass-015d-001": (310, 798),
}
CATALOGUE = Catalogue.from_packages(node_types)


def trace(name: str) -> Json:
    return json.loads((FOLDER / f"{name}.json").read_text())


def critical_path(document: JsonObject) -> float:
    model = validate(document, CATALOGUE, Limits())
    ends: dict[str, float] = {}
    graph = nx.DiGraph([(need, name) for name, node in model.nodes.items() for need in node.needs])
    graph.add_nodes_from(model.nodes)
    for name in nx.topological_sort(graph):
        node = model.nodes[name]
        seconds: Any = node.given["seconds"]
        ends[name] = max((ends[need] for need in node.needs), default=0.0) + seconds
    return max(ends.values())


@pytest.mark.parametrize("name", SHAPES)
def test_real_traces_become_valid_graphs(name: str) -> None:
    document, notes = convert(trace(name))
    model = validate(parse(write_yaml(document), Limits()), CATALOGUE, Limits())
    edges = sum(len(node.needs) for node in model.nodes.values())
    assert (len(model.nodes), edges) == SHAPES[name]
    assert critical_path(document) == pytest.approx(2.0, abs=1e-3)
    assert convert(trace(name)) == (document, notes)


def test_the_critical_path_may_be_chosen() -> None:
    document, _ = convert(trace("blast-chameleon-small-001"), 0.5)
    assert critical_path(document) == pytest.approx(0.5, abs=1e-3)
    document, _ = convert(trace("blast-chameleon-small-001"), 0)
    assert critical_path(document) == 0


@pytest.mark.parametrize(
    ("example", "name"),
    [
        ("chain", "helloworld-chain-5-chameleon"),
        ("montage", "montage-chameleon-2mass-015d-001"),
    ],
)
def test_the_committed_examples_are_what_comes_out(example: str, name: str) -> None:
    document, _ = convert(trace(name))
    assert (FOLDER / f"{example}.yaml").read_text() == write_yaml(document)


def instance(
    parents: dict[str, list[str]],
    name: str = "w",
    seconds: float = 1.0,
    edges: str = "parents",
) -> JsonObject:
    tasks: list[Json] = [{"id": each, edges: [*need]} for each, need in parents.items()]
    times: list[Json] = [{"id": each, "runtimeInSeconds": seconds} for each in parents]
    return {
        "name": name,
        "schemaVersion": "1.5",
        "workflow": {"specification": {"tasks": tasks}, "execution": {"tasks": times}},
    }


@given(st.lists(st.text(min_size=1, max_size=100), min_size=1, max_size=20, unique=True))
def test_any_ids_become_names_that_are_unique_and_reported(ids: list[str]) -> None:
    parents = {each: ids[:index] for index, each in enumerate(ids)}
    document, notes = convert(instance(parents))
    model = validate(document, CATALOGUE, Limits())
    assert len(model.nodes) == len(ids)
    kept = [each for each in ids if each in model.nodes]
    assert len(notes) == len(ids) - len(kept)
    assert [len(node.needs) for node in model.nodes.values()] == list(range(len(ids)))


@given(st.text(max_size=80))
def test_any_workflow_has_a_name(name: str) -> None:
    document, notes = convert(instance({"a": []}, name))
    model = validate(document, CATALOGUE, Limits())
    assert (model.metadata.name == name) == (not notes)


def test_names_that_fit_stay_and_others_give_way() -> None:
    document, notes = convert(instance({"a.b": [], "a_b": ["a.b"], "in": ["a_b"]}))
    nodes = document["nodes"]
    assert isinstance(nodes, dict)
    assert "a_b" in nodes
    assert len(nodes) == 3
    assert len(notes) == 2


def test_edges_may_be_given_from_either_end() -> None:
    document, _ = convert(instance({"a": ["b"], "b": []}, edges="children"))
    assert validate(document, CATALOGUE, Limits()).nodes["b"].needs == ["a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], [("", "wrong_type")]),
        ({}, [("/schemaVersion", "missing_field"), ("/workflow", "missing_field")]),
        ({**instance({"a": []}), "schemaVersion": "1.4"}, [("/schemaVersion", "bad_value")]),
        (instance({}), [("/workflow/specification/tasks", "bad_value")]),
        (
            instance({"a": []}, seconds=-1),
            [("/workflow/execution/tasks/0/runtimeInSeconds", "bad_value")],
        ),
        (
            instance({"a": ["x"], "b": ["b"]}),
            [("/workflow/specification/tasks/0/parents", "missing_task")],
        ),
        (
            instance({"a": ["b"], "b": ["a"]}),
            [("/workflow/specification/tasks", "cycle")],
        ),
    ],
)
def test_what_is_no_trace_is_refused(value: Json, expected: list[tuple[str, str]]) -> None:
    with pytest.raises(Invalid) as raised:
        convert(value)
    assert [(fault.pointer, fault.code) for fault in raised.value.faults] == expected
    assert "WfFormat 1.5" in raised.value.hint
