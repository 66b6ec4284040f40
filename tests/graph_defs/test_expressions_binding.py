"""A contract with cel-expr-python: what graph_defs/cel relies on, and what it works around.

A failure after an upgrade is news: a tree that reads otherwise has to be looked at before the
upgrade goes in, and a defect that is gone lets its workaround go.
"""

import gc
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_defs.cel import ast as cel_ast
from graph_defs.cel import folds as cel_folds
from graph_defs.cel.faults import EvaluationFault
from graph_defs.cel.runtime import Environment, evaluate

ENVIRONMENT = Environment()


def tree(source: str) -> Any:
    return cel_ast.decode(ENVIRONMENT.compile(source))


def outcome(checked: Any, variables: dict[str, Any]) -> Any:
    try:
        return evaluate(ENVIRONMENT.load(cel_ast.encode(checked)), variables)
    except EvaluationFault as fault:
        return fault.raw


def test_tree_reads_as_the_schema_says() -> None:
    root = tree("params.a['b'] == has(nodes.c.d)")
    call = root.expr.call_expr if cel_ast.kind_of(root.expr) == "call_expr" else None
    assert call
    assert call.function == "_==_"
    index, test = cel_ast.children(root.expr)
    assert index.call_expr.function == "_[_]"
    select, key = cel_ast.children(index)
    assert (select.select_expr.field, cel_ast.string_constant(key)) == ("a", "b")
    assert cel_ast.is_ident(select.select_expr.operand, "params")
    assert (test.select_expr.field, test.select_expr.test_only) == ("d", True)


def test_macros_expand_as_cel_cost_and_cel_folds_expect() -> None:
    for source in ("params.map(x, 1)", "params.filter(x, true)", "params.map(x, true, 1)"):
        fold = tree(source).expr.comprehension_expr
        assert (fold.iter_var, fold.accu_var) == ("x", "@result")
        assert cel_folds.appends(fold)
    for source in ("params.exists(x, true)", "params.all(x, true)", "params.exists_one(x, true)"):
        assert not cel_folds.appends(tree(source).expr.comprehension_expr)
    bind = tree("cel.bind(y, 1, y)").expr.comprehension_expr
    assert cel_ast.is_empty_list(bind.iter_range)
    assert bind.accu_var == "y"


@pytest.mark.parametrize(
    "source", ["1u", "b'x'", "{'a': [1.5]}", "params.map(x, x > 1, [x])", "timestamp(0).getHours()"]
)
def test_a_tree_survives_being_read_and_written(source: str) -> None:
    checked = tree(source)
    assert ENVIRONMENT.load(cel_ast.encode(checked))
    again = cel_ast.decode(cel_ast.encode(checked))
    assert again.SerializeToString() == checked.SerializeToString()
    assert len(again.SerializeToString()) > len(again.expr.SerializeToString())  # unknown fields


BODIES = ["x", "[x]", "x + 1", "1 / x", "x.a", "params.map(y, [x, y])", "[x].map(x, x).size()"]
SOURCES = [
    "params.map(x, {body})",
    "params.filter(x, {body} != 2)",
    "params.map(x, x != 3, {body})",
    "params.map(type, params.map(list, {body} == type))",
    "cel.bind(x, 1, params.map(z, {body}))",
    "params.map(x, {body}).map(x, [x]).size()",
    "[params, params].map(w, w.map(x, {body}))",
    "(params.map(x, {body}) == [] || true) ? params.filter(x, true) : []",
    "params.sortBy(x, {body})",
]


@given(
    st.sampled_from(SOURCES),
    st.sampled_from(BODIES),
    st.lists(st.integers(-3, 3), max_size=250)
    | st.dictionaries(st.text("ab"), st.none(), max_size=4)
    | st.none(),
)
@settings(deadline=None)
def test_building_lists_in_pieces_changes_no_value(source: str, body: str, given: Any) -> None:
    try:
        checked = tree(source.replace("{body}", body))
    except Exception:
        return
    plain = outcome(checked, {"params": given})
    cel_folds.rewrite(checked.expr)
    assert outcome(checked, {"params": given}) == plain or "Iteration" in str(plain)


def references_to_none() -> int:
    """Without those of garbage, of which earlier tests leave thousands: it goes at any time."""
    gc.collect()
    return sys.getrefcount(None)


def test_nulls_of_a_result_are_owned() -> None:
    if sys.version_info >= (3, 12):
        pytest.skip("None is immortal")
    program = ENVIRONMENT.load(ENVIRONMENT.compile("[params, {'a': params}, 1, null]"))
    before = references_to_none()
    for _ in range(1000):
        assert evaluate(program, {"params": [None] * 10})[0] == [None] * 10
    assert abs(references_to_none() - before) < 1000


def test_nulls_are_owned_when_the_result_is_refused() -> None:
    if sys.version_info >= (3, 12):
        pytest.skip("None is immortal")
    program = ENVIRONMENT.load(ENVIRONMENT.compile("[[1.0 / 0.0], params]"))
    before = references_to_none()
    for _ in range(1000):
        with pytest.raises(Exception, match="infinity"):
            evaluate(program, {"params": [None] * 10})
    assert abs(references_to_none() - before) < 1000


DEFECTS = {
    "takes a reference of None away": """
before = sys.getrefcount(None)
for _ in range(500):
    run("null", None)
seen = sys.getrefcount(None) - before < -400 or sys.version_info >= (3, 12)
""",
    "cuts strings at NUL": "seen = run('v', 'a\\0b') == 'a'",
    "makes a uint of an int over int64": "seen = run('type(v) == uint', 2**63)",
    "copies the list for each element that map() appends": """
rows = list(range(8000))
def took(source):
    start = time.perf_counter()
    run(source, rows)
    return time.perf_counter() - start
quickly = min(took("v.exists(x, x < 0)") for _ in range(5))  # some time it is not interrupted
seen = took("v.map(x, x).size()") > 10 * quickly
""",
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_that_are_worked_around_are_still_there(defect: str) -> None:
    program = f"""
import sys, time
from cel_expr_python import cel

env = cel.NewEnv(variables={{"v": cel.Type.DYN}})
def run(source, value):
    return env.compile(source).eval(data={{"v": value}}).plain_value()
{DEFECTS[defect]}
print(seen)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr
