import itertools
import json
import pickle
import time
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import node_types
from foundation.errors import Fault, Invalid
from foundation.settings import Limits
from graph_defs.admission import admit
from graph_defs.catalogue import Catalogue
from graph_defs.json_values import Json, JsonObject
from graph_defs.validation import MAX_FAULTS, find_faults, validate
from tests.graph_defs.strategies import acyclic_needs, graph_of

CATALOGUE = Catalogue.from_packages(node_types)
LIMITS = Limits()
ROOT = Path(__file__).parents[2]
MALFORMED = sorted((ROOT / "tests" / "data" / "malformed").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def with_nodes(nodes: JsonObject, **fields: Json) -> JsonObject:
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "tested"},
        "nodes": nodes,
        **fields,
    }


def faults_of(document: JsonObject, limits: Limits = LIMITS) -> list[Fault]:
    return find_faults(document, CATALOGUE, limits)


def codes_of(document: JsonObject, limits: Limits = LIMITS) -> list[tuple[str, str]]:
    return [(fault.pointer, fault.code) for fault in faults_of(document, limits)]


@pytest.mark.parametrize("file", MALFORMED, ids=lambda file: file.stem)
def test_malformed_documents_get_all_their_faults_at_once(file: Path) -> None:
    with pytest.raises(Invalid) as raised:
        admit(file.read_bytes(), CATALOGUE, LIMITS)
    found = sorted((fault.pointer, fault.code) for fault in raised.value.faults)
    expected = sorted((at, code) for at, code in json.loads(file.with_suffix(".json").read_text()))
    assert found == expected
    for fault in raised.value.faults:
        assert fault.message.endswith((".", "…"))
        assert "pydantic" not in fault.message + fault.hint
        assert "Input" not in fault.message
    assert pickle.loads(pickle.dumps(raised.value)).faults == raised.value.faults


def test_there_are_ten_malformed_documents() -> None:
    assert len(MALFORMED) >= 10


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_valid(file: Path) -> None:
    admitted = admit(file.read_bytes(), CATALOGUE, LIMITS)
    assert admitted.graph.nodes
    assert admitted.graph.outputs


@given(acyclic_needs())
def test_random_acyclic_graphs_are_valid(needs: dict[str, list[str]]) -> None:
    model = validate(graph_of(needs), CATALOGUE, LIMITS)
    assert {name: node.needs for name, node in model.nodes.items()} == needs


@given(acyclic_needs(), st.data())
def test_a_planted_cycle_is_found_and_named(
    needs: dict[str, list[str]], data: st.DataObject
) -> None:
    names = list(needs)
    cycle = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True).map(list))
    if len(cycle) == 1:
        cycle = [*cycle, "other"]
        needs = {**needs, "other": []}
    for before, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        if before not in needs[after]:
            needs[after] = [*needs[after], before]
    faults = [fault for fault in faults_of(graph_of(needs)) if fault.code == "cycle"]
    assert faults
    remaining = {name: list(needed) for name, needed in needs.items()}
    for fault in faults:
        named = fault.message.removeprefix("Nodes wait for each other: ").rstrip(".").split(" -> ")
        assert named[0] == named[-1]
        assert len(set(named)) == len(named) - 1 >= 2
        for before, after in itertools.pairwise(named):
            assert before in needs[after]
        _, _, name, _, index = fault.pointer.split("/")
        remaining[name].remove(needs[name][int(index)])
    graph = nx.DiGraph([(before, name) for name, needed in remaining.items() for before in needed])
    assert nx.is_directed_acyclic_graph(graph)  # each cycle was named, and cut where it points


@given(acyclic_needs(), st.data())
def test_references_reach_exactly_what_is_upstream(
    needs: dict[str, list[str]], data: st.DataObject
) -> None:
    document = graph_of(needs)
    name, other = (data.draw(st.sampled_from(list(needs))) for _ in range(2))
    nodes = document["nodes"]
    assert isinstance(nodes, dict)
    nodes[name] = {
        "type": "data.transform",
        "needs": [*needs[name]],
        "with": {"value": f"${{{{ nodes.{other}.output }}}}"},
    }
    graph = nx.DiGraph([(before, each) for each, needed in needs.items() for before in needed])
    graph.add_nodes_from(needs)
    upstream = other in nx.ancestors(graph, name)
    expected = [] if upstream else [(f"/nodes/{name}/with/value", "not_upstream")]
    assert codes_of(document) == expected


def test_transitive_references_are_upstream_also_through_a_cycle() -> None:
    nodes: JsonObject = {
        "a": {"type": "data.transform", "needs": ["b"], "with": {"value": 1}},
        "b": {"type": "data.transform", "needs": ["a"], "with": {"value": 1}},
        "c": {
            "type": "data.transform",
            "needs": ["b"],
            "with": {"value": "${{ nodes.a.output }}"},
        },
    }
    assert [code for _, code in codes_of(with_nodes(nodes))] == ["cycle"]


def test_expressions_stand_for_values_of_any_type() -> None:
    nodes: JsonObject = {
        "a": {"type": "work.sleep", "with": {"seconds": "${{ params.n }}"}},
        "b": {
            "type": "http.request",
            "with": {
                "url": "${{ params.url }}",
                "method": "${{ params.method }}",
                "expect": ["${{ params.status }}"],
                "headers": "${{ params.headers }}",
            },
        },
    }
    assert codes_of(with_nodes(nodes, params={})) == []


def test_an_escaped_expression_is_plain_text() -> None:
    nodes: JsonObject = {"a": {"type": "work.sleep", "with": {"seconds": "$${{ 1 }}"}}}
    assert codes_of(with_nodes(nodes)) == [("/nodes/a/with/seconds", "wrong_type")]


def test_expressions_in_keys_are_checked() -> None:
    nodes: JsonObject = {
        "a": {"type": "data.transform", "with": {"value": {"${{ nodes.b.output }}": 1}}},
        "b": {"type": "data.transform", "with": {"value": "k"}},
    }
    assert codes_of(with_nodes(nodes)) == [
        ("/nodes/a/with/value/${{ nodes.b.output }}", "not_upstream")
    ]


def test_too_long_an_expression_is_named() -> None:
    nodes: JsonObject = {"a": {"type": "data.transform", "with": {"value": "${{ 1 + 1 + 1 + 1 }}"}}}
    found = codes_of(with_nodes(nodes), Limits(max_expression_length=10))
    assert found == [("/nodes/a/with/value", "expression_too_long")]


def test_too_many_nodes_are_named_beside_other_faults() -> None:
    nodes: JsonObject = {
        f"n{number}": {"type": "work.sleep", "with": {"seconds": 1}} for number in range(11)
    }
    document = with_nodes(nodes, extra=1)
    assert codes_of(document, Limits(max_nodes=11)) == [("/extra", "unknown_field")]
    assert codes_of(document, Limits(max_nodes=10)) == [
        ("/nodes", "too_many_nodes"),
        ("/extra", "unknown_field"),
    ]


def test_an_answer_has_a_bounded_number_of_faults() -> None:
    nodes: JsonObject = {f"n{number}": {"type": "work.slep"} for number in range(MAX_FAULTS + 5)}
    faults = faults_of(with_nodes(nodes))
    assert len(faults) == MAX_FAULTS + 1
    assert faults[-1].code == "too_many_faults"


COUNT = 10_000
LARGE: dict[str, dict[str, list[str]]] = {
    "chain": {f"n{i}": [f"n{i - 1}"] if i else [] for i in range(COUNT)},
    "ring": {f"n{i}": [f"n{(i - 1) % COUNT}"] for i in range(COUNT)},
    "dense": {f"n{i}": [f"n{j}" for j in range(max(0, i - 15), i)] for i in range(COUNT)},
    "knotted": {f"n{i}": [f"n{j % COUNT}" for j in range(i - 15, i)] for i in range(COUNT)},
    "missing": {f"n{i}": [f"m{i}"] for i in range(COUNT)},
}


@pytest.mark.parametrize("shape", LARGE)
def test_ten_thousand_nodes_take_seconds(shape: str) -> None:
    nodes: JsonObject = {
        name: {
            "type": "data.transform",
            "needs": [*needed],
            "with": {"value": f"${{{{ nodes.n{number // 2}.output }}}}" if number else 0},
        }
        for number, (name, needed) in enumerate(LARGE[shape].items())
    }
    started = time.process_time()
    found = {fault.code for fault in faults_of(with_nodes(nodes))}
    assert time.process_time() - started < 8
    expected = {"ring": {"cycle"}, "knotted": {"cycle"}}.get(shape, set[str]())
    if shape != "missing":
        assert found == expected


@settings(max_examples=200)
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(0, 9),
            st.sampled_from(
                [
                    "graphwright/v1",
                    "Graph",
                    "a",
                    "work.sleep",
                    "data.transform",
                    "${{ nodes.a.output }}",
                    "#/x",
                ]
            ),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(
                    [
                        "apiVersion",
                        "kind",
                        "metadata",
                        "name",
                        "labels",
                        "params",
                        "properties",
                        "$ref",
                        "allOf",
                        "default",
                        "nodes",
                        "a",
                        "b",
                        "type",
                        "needs",
                        "with",
                        "value",
                        "outputs",
                    ]
                ),
                inner,
                max_size=6,
            ),
        ),
        max_leaves=30,
    ).filter(lambda value: isinstance(value, dict))
)
def test_nothing_but_faults_comes_of_any_object(document: JsonObject) -> None:
    try:
        validate(document, CATALOGUE, LIMITS)
    except Invalid as error:
        assert error.faults
        for fault in error.faults:
            assert fault.pointer == "" or fault.pointer.startswith("/")


def test_a_concurrency_key_may_name_params_and_the_trigger() -> None:
    node: JsonObject = {"type": "work.sleep", "with": {"seconds": 1}}
    for key in ("constant", "${{ params.a }}-${{ trigger.type }}"):
        assert codes_of(with_nodes({"a": node}, concurrency={"key": key})) == []
    faults = faults_of(with_nodes({"a": node}, concurrency={"key": "${{ nodes.a.status }}"}))
    assert [(fault.pointer, fault.code) for fault in faults] == [
        ("/concurrency/key", "not_known_yet")
    ]
    assert "`params` and `trigger`" in faults[0].hint
    broken = with_nodes({"a": node}, concurrency={"key": "${{ params. }}"})
    assert codes_of(broken) == [("/concurrency/key", "expression_invalid")]


def on_platforms(**fields: Json) -> JsonObject:
    image: JsonObject = {"image": "python:3"}
    nodes: JsonObject = {
        "box": {"type": "docker.run", "with": image},
        "pod": {"type": "kubernetes.job", "with": image},
        "nap": {"type": "work.sleep", "with": {"seconds": 1}},
    }
    return with_nodes(nodes, **fields)


@pytest.mark.parametrize("isolation", ["docker", "kubernetes"])
def test_steps_that_need_a_worker_are_refused_where_runs_have_none(isolation: str) -> None:
    faults = faults_of(on_platforms(isolation=isolation))
    assert [(fault.pointer, fault.code) for fault in faults] == [
        ("/nodes/box/type", "needs_worker"),
        ("/nodes/pod/type", "needs_worker"),
    ]
    assert all("`isolation: warm` or `process`" in fault.hint for fault in faults)
    assert f"`isolation: {isolation}`" in faults[0].message


@pytest.mark.parametrize("fields", [{}, {"isolation": "warm"}, {"isolation": "process"}])
def test_steps_that_need_a_worker_are_taken_where_runs_are_on_one(fields: JsonObject) -> None:
    assert codes_of(on_platforms(**fields)) == []


def test_other_steps_need_no_worker() -> None:
    functions: JsonObject = {
        "type": "aws.lambda",
        "with": {"region": "eu-central-1", "function": "f"},
    }
    document = with_nodes({"call": functions}, isolation="kubernetes")
    assert codes_of(document) == []
    assert codes_of(on_platforms(isolation="elsewhere")) == [("/isolation", "bad_value")]
