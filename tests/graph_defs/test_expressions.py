"""Templates and expressions: types, interpolation, escapes, references, faults, messages."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import Invalid
from foundation.settings import Limits
from graph_defs.expressions import Evaluator, ExpressionError, Scope
from graph_defs.json_values import Json

INT64 = 2**63
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INT64, INT64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator(Limits()) as made:
        yield made


def scope(params: dict[str, Any] | None = None, **nodes: Any) -> Scope:
    return Scope(
        params=params or {},
        nodes=nodes,
        run={"id": "r1", "graph": "quakes"},
        trigger={"type": "rest"},
    )


def value_of(evaluator: Evaluator, template: Json, where: Scope | None = None) -> Json:
    return evaluator.evaluate(evaluator.compile(template), where or scope())


def exact(value: Any) -> str:
    """Tells 1 from 1.0 and True, and 0.0 from -0.0."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("params.i", 3),
        ("params.i + 1", 4),
        ("params.d", 2.0),
        ("params.d * 2.0", 4.0),
        ("params.i > 2", True),
        ("params.n", None),
        ("[params.n, null]", [None, None]),
        ("params.s + '!'", "hé!"),
        ("size(params.s)", 2),
        ("params.l.map(x, x * 2)", [2, 4, 6]),
        ("params.l.filter(x, x > 1).map(x, string(x))", ["2", "3"]),
        ("params.l.map(x, params.l.map(y, x * y))", [[1, 2, 3], [2, 4, 6], [3, 6, 9]]),
        ("params.m.map(k, k)", ["k"]),
        ("params.l.map(params, params)", [1, 2, 3]),
        ("params.l.map(params, .params.i)", [3, 3, 3]),
        ("{'b': 1, 'a': {'c': params.l}}", {"a": {"c": [1, 2, 3]}, "b": 1}),
        ("{'a': '}}', 'b': \"}}\"}", {"a": "}}", "b": "}}"}),
        ("3u", 3),
        ("b'abc'", "YWJj"),
        ("timestamp('2026-01-02T03:04:05Z')", "2026-01-02T03:04:05Z"),
        ("timestamp('2026-01-02T03:04:05.120+01:00')", "2026-01-02T02:04:05.12Z"),
        ("duration('90s')", "90s"),
        ("duration('-1500ms')", "-1.5s"),
        ("has(params.i)", True),
        ("has(params.absent)", False),
        ("has(params.m.k) && !has(params.m.q)", True),
        ("params.absent > 1 || true", True),
        ("params['i']", 3),
        ("params.m[params.key]", None),
        ("nodes.read.output.rows[0].mag", 4.5),
        ("nodes['read'].output.rows.size()", 2),
        ("nodes.read.output.rows.sortBy(r, -r.mag)[0].mag", 6.0),
        ("run.graph + ' by ' + trigger.type", "quakes by rest"),
        ("math.greatest([1, 5, 3])", 5),
        ("cel.bind(x, params.i, x * x)", 9),
        ("base64.encode(bytes('a'))", "YQ=="),
        ("'a,b'.split(',')", ["a", "b"]),
        ("'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matches('^(a+)+$')", False),
        ("params.l // the rest is a comment }}\n.size()", 3),
    ],
)
def test_value_keeps_its_type(evaluator: Evaluator, expression: str, expected: Json) -> None:
    params = {"i": 3, "d": 2.0, "n": None, "s": "hé", "l": [1, 2, 3], "m": {"k": None}, "key": "k"}
    where = scope(params, read={"rows": [{"mag": 4.5}, {"mag": 6.0}]})
    for template in (f"${{{{ {expression} }}}}", f"${{{{{expression}}}}}"):
        assert exact(value_of(evaluator, template, where)) == exact(expected)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a ${{ params.s }} b", "a x b"),
        ("${{ params.i }}${{ params.i }}", "33"),
        (" ${{ params.i }}", " 3"),
        ("${{ params.d }} ${{ true }} ${{ null }}", "2.5 true null"),
        ("${{ params.l }} ${{ {'b': 'é', 'a': params.n} }}", '[1,2] {"a":null,"b":"é"}'),
        ("$${{ params.s }}", "${{ params.s }}"),
        ("$$${{ params.s }}", "$${{ params.s }}"),
        ("$${{ a }} ${{ params.s }}", "${{ a }} x"),
        ("${{ '$' }}${{ params.i }}", "$3"),
        ("$ ${ {{ }}", "$ ${ {{ }}"),
        ("", ""),
        (
            {"n": [1, "${{ params.i }}", {"deep": "i=${{ params.i }}"}]},
            {"n": [1, 3, {"deep": "i=3"}]},
        ),
        ({"${{ params.s }}-${{ params.i }}": 1, "$${{k}}": 2}, {"x-3": 1, "${{k}}": 2}),
    ],
)
def test_interpolation_and_escapes(evaluator: Evaluator, template: Json, expected: Json) -> None:
    params = {"s": "x", "i": 3, "d": 2.5, "l": [1, 2], "n": None}
    assert value_of(evaluator, template, scope(params)) == expected


@pytest.mark.parametrize(
    ("template", "references"),
    [
        ("${{ nodes.a.output }}", "a"),
        ('${{ nodes["b"].output.x + nodes.c.output }}', "bc"),
        (
            ["x ${{ nodes.a.output }}", {"k": "${{ nodes.b }}", "${{ nodes.c.output }}": 1}],
            "abc",
        ),
        ("${{ has(nodes.a.output.x) || has(nodes.b) }}", "ab"),
        ("${{ nodes.a.output.map(nodes, nodes + 1) }}", "a"),
        ("${{ params.l.map(nodes, nodes.q) }}", ""),
        ("${{ [1].map(nodes, .nodes.a.output) }}", "a"),
        ("${{ [nodes.a.output].filter(x, x in nodes.b.output) }}", "ab"),
        ("${{ params.nodes.x }}", ""),
        ("$${{ nodes.a.output }}", ""),
    ],
)
def test_references(evaluator: Evaluator, template: Json, references: str) -> None:
    compiled = evaluator.compile(template)
    assert not compiled.faults
    assert compiled.references == set(references)


def test_literal_templates_say_so(evaluator: Evaluator) -> None:
    assert evaluator.compile({"a": [1, "x", "$${{"]}).is_literal
    assert not evaluator.compile({"a": [1, "${{ 1 }}"]}).is_literal
    assert not evaluator.compile({"${{ 'a' }}": 1}).is_literal
    assert not evaluator.compile(["${{"]).is_literal


@pytest.mark.parametrize(
    ("template", "pointer", "code", "words"),
    [
        ("${{ 1 +", "", "expression_unclosed", "no }}"),
        ("${{ 'a }}", "", "expression_unclosed", "string that begins with '"),
        ("${{ 1 } }}", "", "expression_unclosed", "closes nothing"),
        ("${{ }}", "", "expression_invalid", "ends too early"),
        ("${{ 1 + }}", "", "expression_invalid", "line 1, column 4"),
        (
            "${{ params.x\n  + foo }}",
            "",
            "expression_invalid",
            "line 2, column 5: undeclared reference",
        ),
        ("${{ params.l.sum() }}", "", "expression_invalid", "'sum'"),
        ("${{ 1 == 'a' }}", "", "expression_invalid", "(int, string)"),
        ("${{ nodes }}", "", "expression_invalid", "id of one node"),
        ("${{ nodes[params.x].output }}", "", "expression_invalid", "id of one node"),
        ("${{ 'a' in nodes }}", "", "expression_invalid", "id of one node"),
        ("${{ nodes.a.result }}", "", "expression_invalid", 'no field "result"'),
        ("${{ google.protobuf.Value{} }}", "", "expression_invalid", "protobuf"),
        ("${{ [1].first() }}", "", "expression_invalid", "'first'"),
        ("${{ " + "x" * 5000 + " }}", "", "expression_too_long", "5000"),
        ({"a/b": ["", "${{ ? }}"]}, "/a~1b/1", "expression_invalid", "line 1, column 1"),
        ({"${{ ? }}": 1}, "/${{ ? }}", "expression_invalid", "line 1, column 1"),
    ],
)
def test_compile_faults(
    evaluator: Evaluator, template: Json, pointer: str, code: str, words: str
) -> None:
    compiled = evaluator.compile(template)
    (fault,) = compiled.faults
    assert (fault.pointer, fault.code) == (pointer, code)
    assert words in fault.message
    with pytest.raises(Invalid):
        evaluator.evaluate(compiled, scope())


@pytest.mark.parametrize(
    "text", ["(", "[", "{'a':", "-", "!", "params.a.", "1+", "size(", "[1].map(x,"]
)
@pytest.mark.parametrize("closing", ["", "1" + ")" * 300])
def test_deep_nesting_is_a_fault_not_a_crash(evaluator: Evaluator, text: str, closing: str) -> None:
    source = (text * 4000)[: 4000 - len(closing)] + closing
    compiled = evaluator.compile(f"${{{{ {source} }}}}")
    assert all(fault.code.startswith("expression_") for fault in compiled.faults)


def test_nested_comprehensions_compile_up_to_a_depth_and_are_refused_beyond(
    evaluator: Evaluator,
) -> None:
    expression, value = "params.v", 7
    for depth in range(1, 12):
        expression, value = f"[1].map(x{depth}, {expression})", [value]
        assert value_of(evaluator, f"${{{{ {expression} }}}}", scope({"v": 7})) == value
    for depth in range(12, 30):
        expression = f"[1].map(x{depth}, {expression})"
    (fault,) = evaluator.compile(f"${{{{ {expression} }}}}").faults
    assert "nested too deeply" in fault.message


def test_every_fault_is_reported(evaluator: Evaluator) -> None:
    faults = evaluator.compile({"a": "${{ ? }}", "b": ["${{ foo }} ${{ bar }}", "${{"]}).faults
    assert [fault.pointer for fault in faults] == ["/a", "/b/0", "/b/0", "/b/1"]


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        ("params.q", 'params has no key "q"', "has(params.q)"),
        ("params.q + 1", 'params has no key "q"', "Its keys are: d, i, l, m, s"),
        ("params.m.q.r", 'params.m has no key "q"', "has(params.m.q)"),
        ("params.i.j", "params.i is an int, which has no fields", ""),
        ("has(params.q.r)", 'params has no key "q"', ""),
        ("params.l.map(x, x.y)", "no object has no fields", ""),
        ("[params.m].map(x, x.y)", 'no key "y"', "has(x.key)"),
        ("nodes.gone.output", 'node "gone" has no output', "upstream"),
        ("params.i * params.d", "* cannot take int and double", "double()"),
        ("params.s + params.i", "+ cannot take string and int", "string()"),
        ("params.s.join(',')", "join() cannot take string and string", ""),
        ("params.i ? 1 : 2", "needs a bool", "Compare explicitly"),
        ("params.i.map(x, x)", "only a list or a map", ""),
        ("1 / 0", "division by zero", "d == 0"),
        ("1 % 0", "remainder of a division by zero", ""),
        ("9223372036854775807 + params.i", "left the range", "double()"),
        ("params.l[5]", "index 5 is outside a list of 3", ""),
        ("1.0 / 0.0", "infinity", "isFinite"),
        ("{1: 2}", "keys are not all strings", "string(key)"),
        ("[type(1)]", "holds a type", ""),
        ("'a'.matches('(')", "invalid regular expression", ""),
        ("int('x')", "cannot convert string to int", ""),
    ],
)
def test_failures_are_explained(
    evaluator: Evaluator, expression: str, message: str, hint: str
) -> None:
    params: dict[str, Any] = {"i": 3, "d": 2.5, "s": "x", "l": [1, 2, 3], "m": {}}
    with pytest.raises(ExpressionError) as caught:
        value_of(evaluator, {"with": f"${{{{ {expression} }}}}"}, scope(params))
    error = caught.value
    assert error.code == "expression_failed"
    assert error.message.startswith(f"${{{{ {expression} }}}}: ")
    assert message in error.message
    assert hint in error.hint
    assert error.ids == {"expression": expression, "pointer": "/with"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**63, "does not fit in 64 bits"),
        (-(2**63) - 1, "does not fit in 64 bits"),
        ("a\0b", "NUL"),
        ({"a\0b": 1}, "NUL"),
        ("\ud800", "surrogate"),
        (float("nan"), "NaN"),
        ((1, 2), "tuple"),
    ],
)
def test_data_that_cel_cannot_hold_is_refused(
    evaluator: Evaluator, value: Any, message: str
) -> None:
    with pytest.raises(ExpressionError, match=message):
        value_of(evaluator, "${{ [params.v] }}", scope({"v": [value]}))


def test_data_nested_too_deeply_is_refused(evaluator: Evaluator) -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ExpressionError, match="nested deeper"):
        value_of(evaluator, "${{ [params.v] }}", scope({"v": value}))


@pytest.mark.parametrize("template", [{"${{ 1 }}": 2}, {"a": 1, "${{ 'a' }}": 2}])
def test_keys_are_different_strings(evaluator: Evaluator, template: Json) -> None:
    with pytest.raises(ExpressionError, match="the key"):
        value_of(evaluator, template)


@given(JSON)
def test_any_value_round_trips(evaluator: Evaluator, value: Any) -> None:
    where = scope({"v": value})
    assert exact(value_of(evaluator, "${{ params.v }}", where)) == exact(value)
    assert exact(value_of(evaluator, "${{ [params.v][0] }}", where)) == exact(value)


@given(JSON)
def test_a_literal_template_round_trips(evaluator: Evaluator, value: Any) -> None:
    if "${{" not in exact(value):
        compiled = evaluator.compile(value)
        assert compiled.is_literal
        assert exact(evaluator.evaluate(compiled, scope())) == exact(value)


@given(st.lists(st.sampled_from(["$", "{", "}", "'", "a", " ", "${{", "}}", "$${{", "{{"])))
def test_any_text_compiles_or_has_a_fault_and_can_be_escaped(
    evaluator: Evaluator, pieces: list[str]
) -> None:
    text = "".join(pieces)
    evaluator.compile(text)
    escaped = text.replace("${{", "$${{")
    assert value_of(evaluator, escaped) == text
