"""``secrets.NAME`` in documents: where it may stand, and how it is written."""

from collections.abc import Iterator
from typing import Any

import pytest

import node_types
from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.expressions import Evaluator, ExpressionError, Scope
from graph_defs.json_values import Json
from graph_defs.validation import find_faults

CATALOGUE = Catalogue.from_packages(node_types)
SECRET = "${{ secrets.API_KEY }}"
URL = "https://example.org/"


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(Limits()) as made:
        yield made


def document(nodes: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "tested"},
        "nodes": nodes or {"one": {"type": "data.transform", "with": {"value": 1}}},
        **fields,
    }


def faults_of(**fields: Any) -> list[tuple[str, str]]:
    found = find_faults(document(**fields), CATALOGUE, Limits())
    return [(fault.pointer, fault.code) for fault in found]


def node(kind: str, **given: Any) -> dict[str, Any]:
    return {"n": {"type": kind, "with": given}}


def test_a_request_takes_secrets_wherever_they_go_out() -> None:
    nodes = node(
        "http.request",
        url=f"https://example.org/{SECRET}",
        method="POST",
        headers={"Authorization": f"Bearer {SECRET}", SECRET: "x"},
        query={"key": SECRET},
        json={"deep": [{SECRET: "${{ base64.encode(bytes('ann:' + secrets['OTHER'])) }}"}]},
    )
    assert faults_of(nodes=nodes) == []
    assert faults_of(nodes=node("http.request", url=URL, body=SECRET)) == []


@pytest.mark.parametrize(
    ("kind", "given", "field"),
    [
        ("http.request", {"url": URL, "method": SECRET}, "method"),
        ("http.request", {"url": URL, "timeout_seconds": SECRET}, "timeout_seconds"),
        ("data.transform", {"value": SECRET}, "value"),
        ("data.transform", {"value": {"deep": [f"{SECRET}!"]}}, "value/deep/0"),
        ("data.transform", {"value": {f"{SECRET}!": 1}}, "value/${{ secrets.API_KEY }}!"),
        ("work.sleep", {"seconds": "${{ size(secrets.API_KEY) }}"}, "seconds"),
        ("work.compute", {"seconds": "${{ size(secrets.API_KEY) }}"}, "seconds"),
        ("file.read", {"path": SECRET}, "path"),
    ],
)  # fmt: skip
def test_other_fields_of_nodes_take_none(kind: str, given: Any, field: str) -> None:
    assert faults_of(nodes=node(kind, **given)) == [
        (f"/nodes/n/with/{field}", "secret_not_allowed")
    ]


def test_the_fault_says_where_secrets_may_stand() -> None:
    nodes = {
        "a": {"type": "http.request", "with": {"url": URL, "method": SECRET}},
        "b": {"type": "data.transform", "with": {"value": SECRET}},
    }
    first, second = find_faults(document(nodes), CATALOGUE, Limits())
    assert first.message == "`method` of `http.request` takes no secrets."
    assert first.hint == "`body`, `headers`, `json`, `query`, `url` may hold secrets."
    assert second.message == "`value` of `data.transform` takes no secrets."
    assert second.hint == "Use the secret in the node that needs it, such as an `http.request`."


def test_outputs_and_the_concurrency_key_take_none() -> None:
    found = faults_of(
        outputs={"all": {"key": f"is {SECRET}"}},
        concurrency={"key": "${{ params.x + secrets.API_KEY }}"},
    )
    assert found == [
        ("/outputs/all/key", "secret_not_allowed"),
        ("/concurrency/key", "secret_not_allowed"),
    ]


def test_a_node_type_that_is_not_known_is_one_fault() -> None:
    assert faults_of(nodes=node("http.requst", url=SECRET)) == [
        ("/nodes/n/type", "unknown_node_type")
    ]


def test_names_are_known_before_the_run(evaluator: Evaluator) -> None:
    template = evaluator.compile(
        {"${{ secrets.A }}": ["x ${{ secrets['B'] + params.b }}", "${{ [1].map(i, secrets.C) }}"]}
    )
    assert template.secrets == {"A", "B", "C"}
    assert template.references == frozenset()
    assert evaluator.compile("${{ params.secrets.A }}").secrets == frozenset()
    assert evaluator.compile("${{ [1].map(secrets, secrets) }}").secrets == frozenset()


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("secrets", "secrets must be followed by the name of one secret"),
        ("secrets[params.which]", "secrets must be followed by the name of one secret"),
        ("secrets.map(name, secrets[name])", "secrets must be followed"),
        ("'A' in secrets", "secrets must be followed by the name of one secret"),
        ("secrets.A.b", "a secret is a string, which has no fields"),
        ("has(secrets.A)", "whether a secret is set cannot be tested"),
        ("secrets['A-B']", 'no secret has the name "A-B"'),
        ("secrets['']", 'no secret has the name ""'),
    ],
)
def test_what_does_not_compile(evaluator: Evaluator, expression: str, words: str) -> None:
    (fault,) = evaluator.compile(f"${{{{ {expression} }}}}").faults
    assert fault.code == "expression_invalid"
    assert words in fault.message
    assert fault.hint


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (SECRET, "s3cr3t"),
        ("Bearer ${{ secrets.API_KEY }}", "Bearer s3cr3t"),
        ("${{ secrets['API_KEY'].upperAscii() }}", "S3CR3T"),
        ({SECRET: [SECRET]}, {"s3cr3t": ["s3cr3t"]}),
    ],
)
def test_an_expression_reads_the_value(evaluator: Evaluator, written: Json, read: Json) -> None:
    scope = Scope({}, {}, {}, {}, secrets={"API_KEY": "s3cr3t"})
    assert evaluator.evaluate(evaluator.compile(written), scope) == read
    assert evaluator.evaluate_quickly(evaluator.compile(written), scope) == read
    assert "s3cr3t" not in repr(scope)


def test_without_its_value_nothing_is_made_up(evaluator: Evaluator) -> None:
    with pytest.raises(ExpressionError) as raised:
        evaluator.evaluate(evaluator.compile(SECRET), Scope({}, {}, {}, {}))
    assert raised.value.message.endswith('secrets has no key "API_KEY"')


def test_a_costly_expression_reads_it_in_its_own_process() -> None:
    with Evaluator(Limits(max_expression_cost=1)) as evaluator:
        scope = Scope({}, {}, {}, {}, secrets={"API_KEY": "s3cr3t"})
        assert (
            evaluator.evaluate(evaluator.compile(f"{SECRET}${{{{ 1 + 1 }}}}"), scope) == "s3cr3t2"
        )
