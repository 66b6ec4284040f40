import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from foundation.errors import Invalid, TooLarge
from foundation.settings import Limits
from graph_defs.json_schema import Checker, Index, Meter, check_schema
from graph_defs.json_values import Json, JsonObject
from graph_defs.params import bind_params, check_params_schema
from graph_defs.suggestions import Suggester
from tests.graph_defs.strategies import values

LIMITS = Limits()


def refused(schema: JsonObject | None, given: Json) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as raised:
        bind_params(schema, given, LIMITS)
    return [(fault.pointer, fault.code) for fault in raised.value.faults]


def test_defaults_are_filled_in_through_objects_arrays_references_and_all_of() -> None:
    schema: JsonObject = {
        "$defs": {
            "size": {"type": "integer", "default": 3},
            "point": {"properties": {"x": {"default": 0}, "y": {"default": 0}}},
        },
        "type": "object",
        "properties": {
            "plain": {"type": "number", "default": 4.5},
            "referred": {"$ref": "#/$defs/size"},
            "combined": {"allOf": [{"$ref": "#/$defs/size"}, {"minimum": 1}]},
            "nested": {"properties": {"deep": {"properties": {"a": {"default": [1]}}}}},
            "points": {"items": {"$ref": "#/$defs/point"}},
            "pair": {"prefixItems": [{"$ref": "#/$defs/point"}]},
            "named": {"additionalProperties": {"$ref": "#/$defs/point"}},
            "options": {"default": {}, "properties": {"retries": {"default": 2}}},
            "absent": {"properties": {"a": {"default": 1}}},
        },
        "allOf": [{"properties": {"also": {"default": True}}}],
    }
    assert check_params_schema(schema, Suggester()) == []
    given: JsonObject = {
        "nested": {"deep": {}},
        "points": [{"x": 1}, {}],
        "pair": [{}],
        "named": {"p": {"y": 5}},
    }
    before, declared = json.dumps(given), json.dumps(schema)
    assert bind_params(schema, given, LIMITS) == {
        "plain": 4.5,
        "referred": 3,
        "combined": 3,
        "nested": {"deep": {"a": [1]}},
        "points": [{"x": 1, "y": 0}, {"x": 0, "y": 0}],
        "pair": [{"x": 0, "y": 0}],
        "named": {"p": {"x": 0, "y": 5}},
        "options": {"retries": 2},
        "also": True,
    }
    assert json.dumps(given) == before
    assert bind_params(schema, {"options": {}}, LIMITS)["options"] == {"retries": 2}
    assert json.dumps(schema) == declared


def test_recursive_schemas_are_bound() -> None:
    schema: JsonObject = {
        "properties": {"tree": {"$ref": "#/$defs/tree"}},
        "$defs": {
            "tree": {
                "properties": {
                    "size": {"type": "integer", "default": 1},
                    "children": {"items": {"$ref": "#/$defs/tree"}},
                }
            }
        },
    }
    assert check_params_schema(schema, Suggester()) == []
    assert bind_params(schema, {"tree": {"children": [{}]}}, LIMITS) == {
        "tree": {"size": 1, "children": [{"size": 1}]}
    }
    assert refused(schema, {"tree": {"children": [{"size": "x"}]}}) == [
        ("/params/tree/children/0/size", "wrong_type")
    ]


def test_every_fault_has_its_pointer() -> None:
    schema: JsonObject = {
        "type": "object",
        "required": ["needed", "a/b"],
        "properties": {
            "count": {"type": "integer", "minimum": 1},
            "colour": {"enum": ["red", "green"]},
            "when": {"type": "string", "format": "date"},
            "deep": {"required": ["x"], "additionalProperties": False},
        },
        "additionalProperties": False,
    }
    given: JsonObject = {"count": 0, "colour": "blue", "when": "soon", "deep": {"y": 1}, "cuont": 1}
    assert sorted(refused(schema, given)) == [
        ("/params/a~1b", "missing_field"),
        ("/params/colour", "bad_value"),
        ("/params/count", "bad_value"),
        ("/params/cuont", "unknown_field"),
        ("/params/deep/x", "missing_field"),
        ("/params/deep/y", "unknown_field"),
        ("/params/needed", "missing_field"),
        ("/params/when", "bad_value"),
    ]
    with pytest.raises(Invalid) as raised:
        bind_params(schema, {"cuont": 1}, LIMITS)
    assert any(fault.hint == "Did you mean `count`?" for fault in raised.value.faults)


def test_whole_numbers_come_as_integers() -> None:
    schema: JsonObject = {"properties": {"n": {"type": "integer"}}}
    assert type(bind_params(schema, {"n": 2.0}, LIMITS)["n"]) is int


def test_a_graph_without_params_takes_none() -> None:
    assert bind_params(None, {}, LIMITS) == {}
    assert refused(None, {"a": 1, "b": 2}) == [
        ("/params/a", "unknown_field"),
        ("/params/b", "unknown_field"),
    ]
    assert bind_params({}, {"a": 1}, LIMITS) == {"a": 1}


@pytest.mark.parametrize("given", [[], "x", None, 1])
def test_params_are_an_object(given: Json) -> None:
    assert refused({}, given) == [("/params", "wrong_type")]


def test_content_and_size_are_bounded() -> None:
    assert refused({}, {"a": ["\0", 2**53, float("nan")]}) == [
        ("/params/a/0", "bad_string"),
        ("/params/a/1", "bad_number"),
        ("/params/a/2", "bad_number"),
    ]
    with pytest.raises(TooLarge):
        bind_params({}, {"a": "x" * 100}, Limits(max_params_bytes=100))


def test_defaults_count_towards_the_size() -> None:
    item: JsonObject = {"properties": {"text": {"default": "x" * 100_000}}}
    schema: JsonObject = {"properties": {"items": {"items": item}}}
    nothing: list[Json] = [{} for _ in range(100_000)]
    with pytest.raises(TooLarge):
        bind_params(schema, {"items": [*nothing[:20]]}, LIMITS)
    assert refused(schema, {"items": nothing}) == [("/params", "too_costly")]


def test_patterns_run_in_linear_time() -> None:
    schema: JsonObject = {
        "properties": {"a": {"pattern": "^(a+)+$"}},
        "patternProperties": {"^(x+x+)+y$": {"type": "integer"}},
    }
    assert check_params_schema(schema, Suggester()) == []
    started = time.process_time()
    assert refused(schema, {"a": "a" * 50_000 + "!"}) == [("/params/a", "bad_value")]
    bind_params(schema, {"x" * 50_000: "no match"}, LIMITS)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "(", "a{2000}", r"\p{Letter}"])
def test_patterns_that_cannot_run_in_linear_time_are_refused(pattern: str) -> None:
    schema: JsonObject = {"properties": {"a": {"pattern": pattern}}}
    (fault,) = check_params_schema(schema, Suggester())
    assert (fault.pointer, fault.code) == ("/params/properties/a/pattern", "invalid_params_schema")


@pytest.mark.parametrize(
    "reference",
    ["https://example.org/s.json", "file:///etc/passwd", "other.json", "//host/x", "", "x#/y"],
)
def test_references_stay_inside(reference: str) -> None:
    schema: JsonObject = {"properties": {"a": {"$ref": reference}}}
    (fault,) = check_params_schema(schema, Suggester())
    assert (fault.pointer, fault.code) == ("/params/properties/a/$ref", "remote_ref")


def test_references_lead_to_schemas_only() -> None:
    schema: JsonObject = {
        "examples": [{"pattern": "(?=never checked)"}],
        "properties": {"a": {"$ref": "#/examples/0"}},
    }
    (fault,) = check_params_schema(schema, Suggester())
    assert (fault.pointer, fault.code) == ("/params/properties/a/$ref", "invalid_params_schema")


def exponential() -> JsonObject:
    """Sixty definitions, each of which refers twice to the one before."""
    definitions: JsonObject = {"s0": {"type": "integer"}}
    for number in range(1, 60):
        below: JsonObject = {"$ref": f"#/$defs/s{number - 1}"}
        definitions[f"s{number}"] = {"anyOf": [below, below]}
    return {"$defs": definitions, "properties": {"a": {"$ref": "#/$defs/s59"}}}


def branching() -> JsonObject:
    """A recursion that branches at each level of the value."""
    both: JsonObject = {"items": {"$ref": "#/$defs/t"}}
    return {
        "$defs": {"t": {"anyOf": [{"allOf": [both, {"type": "object"}]}, both], "type": "array"}},
        "properties": {"a": {"$ref": "#/$defs/t"}},
    }


def defaulting() -> JsonObject:
    """Defaults that double at each level."""
    definitions: JsonObject = {"d0": {"default": 1}}
    for number in range(1, 60):
        below: JsonObject = {"$ref": f"#/$defs/d{number - 1}"}
        both: JsonObject = {"l": below, "r": below}
        definitions[f"d{number}"] = {"default": {}, "properties": both}
    return {"$defs": definitions, "properties": {"a": {"$ref": "#/$defs/d59"}}}


def nested(depth: int) -> Json:
    value: Json = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (exponential(), {"a": "x"}),
        (branching(), {"a": nested(60)}),
        (defaulting(), {}),
        ({"uniqueItems": True, "items": {"enum": list(range(3_000))}}, None),
    ],
    ids=["exponential", "branching", "defaulting", "wide"],
)
def test_work_is_bounded(schema: JsonObject, given: Json) -> None:
    if given is None:
        items: list[Json] = [*range(3_000)]
        schema, given = {"properties": {"a": schema}}, {"a": items}
    started = time.process_time()
    check_params_schema(schema, Suggester())
    with pytest.raises(Invalid) as raised:
        bind_params(schema, given, LIMITS)
    assert [fault.code for fault in raised.value.faults] == ["too_costly"]
    assert time.process_time() - started < 20


def test_many_patterns_are_too_much_work_to_check() -> None:
    patterns: JsonObject = {f"(.{{30}}){{30}}{number}": True for number in range(20_000)}
    started = time.process_time()
    (fault,) = check_params_schema({"patternProperties": patterns}, Suggester())
    assert (fault.pointer, fault.code) == ("/params", "invalid_params_schema")
    assert time.process_time() - started < 20


_SCALARS = st.sampled_from(["string", "number", "integer", "boolean", "null", "object", "array"])


def _applicators(inner: SearchStrategy[Any]) -> SearchStrategy[Any]:
    names = st.sampled_from("abc")
    some = st.lists(inner, min_size=1, max_size=2)
    to_objects: dict[str, SearchStrategy[Any]] = {
        "properties": st.dictionaries(names, inner, max_size=3),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner),
        "additionalProperties": inner,
        "unevaluatedProperties": inner,
        "propertyNames": inner,
        "dependentSchemas": st.dictionaries(names, inner, max_size=2),
    }
    to_arrays: dict[str, SearchStrategy[Any]] = {
        "prefixItems": some,
        "items": inner,
        "contains": inner,
        "unevaluatedItems": inner,
    }
    in_place: dict[str, SearchStrategy[Any]] = {
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
    }
    return st.one_of(
        *(
            st.fixed_dictionaries({}, optional=keywords)
            for keywords in (to_objects, to_arrays, in_place, {**to_objects, **in_place})
        )
    )


_SCHEMAS: SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.booleans(),
        st.fixed_dictionaries({"type": _SCALARS}),
        st.fixed_dictionaries({"enum": st.lists(values, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"minimum": st.integers(-5, 5)}),
        st.fixed_dictionaries({"maxLength": st.integers(0, 5)}),
        st.fixed_dictionaries({"required": st.lists(st.sampled_from("abc"), unique=True)}),
        st.fixed_dictionaries({"uniqueItems": st.booleans(), "minItems": st.integers(0, 2)}),
    ),
    _applicators,
    max_leaves=8,
)
_INSTANCES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-6, 6), st.sampled_from(["", "a", "abcdef"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abcd"), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(_SCHEMAS, _INSTANCES)
def test_agrees_with_jsonschema(schema: Any, value: Any) -> None:
    assert check_schema(schema, (), Suggester()) == []
    fits = not Checker(Index(schema), Meter()).check(schema, value)
    assert fits == jsonschema.Draft202012Validator(schema).is_valid(value)
