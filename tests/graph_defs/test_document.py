import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import node_types
from foundation.settings import Limits
from graph_defs.catalogue import Catalogue
from graph_defs.document import Concurrency, GraphDocument, Node, Retry, json_schema
from graph_defs.json_values import JsonObject
from graph_defs.parsing import parse
from graph_defs.triggers import Notify, TimerTrigger, WebhookTrigger
from graph_defs.validation import validate

CATALOGUE = Catalogue.from_packages(node_types)
SCHEMA = json_schema(CATALOGUE)
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))


def document(node: JsonObject, **fields: Any) -> JsonObject:
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "tested"},
        "nodes": {"a": node},
        **fields,
    }


def fits(value: JsonObject, schema: dict[str, Any] = SCHEMA) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_fit(file: Path) -> None:
    value = parse(file.read_bytes(), Limits())
    jsonschema.Draft202012Validator(SCHEMA).validate(value)
    jsonschema.Draft202012Validator(json_schema()).validate(value)


@pytest.mark.parametrize(
    "value",
    [
        document({"type": "work.slep", "with": {"seconds": 1}}),
        document({"type": "work.sleep"}),
        document({"type": "work.sleep", "with": {"seconds": "long"}}),
        document({"type": "work.sleep", "with": {"seconds": 1, "extra": 1}}),
        document({"type": "work.sleep", "with": {"seconds": 1}, "need": []}),
        document({"type": "work.sleep", "with": {"seconds": 1}, "needs": ["b", "b"]}),
        document({"type": "http.request", "with": {"url": "ftp://x"}}),
        document({"type": "work.sleep", "with": {"seconds": 1}}, params={"type": "strnig"}),
        document({"type": "work.sleep", "with": {"seconds": 1}}, nodes={}),
        document({"type": "work.sleep", "with": {"seconds": 1}}, outputs={"a b": 1}),
        document(
            {"type": "work.sleep", "with": {"seconds": 1}},
            nodes={"in": {"type": "work.sleep", "with": {"seconds": 1}}},
        ),
    ],
)
def test_faults_are_marked_in_an_editor(value: JsonObject) -> None:
    assert not fits(value)


@pytest.mark.parametrize(
    "node",
    [
        {"type": "work.sleep", "with": {"seconds": "${{ params.n }}"}},
        {
            "type": "http.request",
            "with": {
                "url": "https://example.org",
                "method": "${{ params.m }}",
                "expect": [200, "${{ params.s }}"],
                "query": {"q": "${{ params.q }}"},
            },
        },
        {"type": "data.transform", "with": {"value": None}},
    ],
)
def test_expressions_stand_for_any_value(node: JsonObject) -> None:
    assert fits(document(node))


def test_every_field_is_described() -> None:
    for name, part in {"": SCHEMA, **SCHEMA["$defs"]}.items():
        if name == "JsonValue":
            continue
        assert part.get("description"), name
        for field, schema in part["properties"].items():
            assert "description" in schema or "$ref" in schema, f"{name}.{field}"


def test_it_lists_the_node_types() -> None:
    assert SCHEMA["$defs"]["Node"]["properties"]["type"]["enum"] == list(CATALOGUE)


def test_the_guide_lists_every_code_of_the_malformed_documents() -> None:
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "graph-document.md").read_text()
    for file in (root / "tests" / "data" / "malformed").glob("*.json"):
        for _, code in json.loads(file.read_text()):
            assert f"`{code}`" in guide, code


def test_the_example_of_the_guide_is_valid() -> None:
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "graph-document.md").read_text()
    example = guide.split("```yaml\n")[1].split("```")[0]
    assert validate(parse(example, Limits()), CATALOGUE, Limits()).metadata.name == "quake-digest"


def test_the_example_of_failures_and_time_is_valid() -> None:
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "graph-document.md").read_text()
    fields = guide.split("## Failures and time\n\n```yaml\n")[1].split("```")[0]
    text = f"apiVersion: graphwright/v1\nkind: Graph\nmetadata: {{name: tested}}\n{fields}"
    graph = validate(parse(text.encode(), Limits()), CATALOGUE, Limits())
    assert {node.when for node in graph.nodes.values()} == {"succeeded", "failed", "always"}


def test_the_guide_describes_every_field() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "graph-document.md").read_text()
    sections = {part.partition("\n")[0]: part for part in guide.split("\n## ")}
    for model, section, prefix in (
        (GraphDocument, "Fields", ""),
        (Node, "Fields", "nodes.<id>."),
        (Retry, "Failures and time", ""),
        (Concurrency, "Concurrency", ""),
        (WebhookTrigger, "Webhooks", ""),
        (TimerTrigger, "Timers", ""),
        (Notify, "Notices", ""),
    ):
        for name, field in model.model_fields.items():
            at = f"{prefix}{field.alias or name}"
            assert f"`{at}" in sections[section], f"{section}: {at}"


@pytest.mark.parametrize("section", ["Webhooks", "Timers", "Notices"])
def test_the_examples_of_triggers_and_notices_are_valid(section: str) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "graph-document.md").read_text()
    fields = guide.split(f"## {section}\n\n```yaml\n")[1].split("```")[0]
    value = document({"type": "work.sleep", "with": {"seconds": 1}})
    value.update(parse(fields.encode(), Limits()))
    graph = validate(value, CATALOGUE, Limits())
    assert graph.triggers or graph.notify
    assert fits(value)
