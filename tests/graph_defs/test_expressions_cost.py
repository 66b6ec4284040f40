"""The cost of expressions: bombs fail the node and never the process, and bounds are bounds."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.settings import Limits
from graph_defs.cel import ast as cel_ast
from graph_defs.cel import cost as cel_cost
from graph_defs.cel import inputs as cel_inputs
from graph_defs.cel import values as cel_values
from graph_defs.cel.runtime import Environment, evaluate
from graph_defs.expressions import Evaluator, ExpressionError, ExpressionTooCostly, Scope

COSTLY = "${{ lists.range(params.n).map(x, x).size() }}"
"""Has no bound, since lists.range() grows with the value of a number; so it runs in the sandbox."""


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    """It bounds memory; nothing ends for taking long."""
    limits = Limits(max_expression_memory_bytes=256 * 2**20, max_expression_seconds=100.0)
    with Evaluator(limits) as made:
        yield made


@pytest.fixture
def quick_evaluator() -> Iterator[Evaluator]:
    with Evaluator(Limits(max_expression_seconds=1.0)) as made:
        yield made


def run(evaluator: Evaluator, template: str, **params: Any) -> Any:
    return evaluator.evaluate(evaluator.compile(template), Scope(params, {}, {}, {}))


def sandboxes(parent: int | None = None) -> list[int]:
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        is_child = int(status[1]) == (parent or os.getpid()) and status[0] != "Z"
        if is_child and "graph_defs.cel.sandbox" in command:
            found.append(int(folder.name))
    return found


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


DOUBLING = "${{ [params.s]" + ".map(a, a + a)" * 25 + ".size() }}"
SHARING = "${{ [params.s]" + ".map(a, [a, a])" * 25 + " }}"


@pytest.mark.parametrize("bomb", [DOUBLING, SHARING, "${{ lists.range(params.n) }}"])
def test_memory_bomb_fails_and_the_process_lives(evaluator: Evaluator, bomb: str) -> None:
    before = resident_bytes()
    for _ in range(2):
        with pytest.raises(ExpressionTooCostly, match="256 MiB of memory") as caught:
            run(evaluator, bomb, s="x" * 1000, n=100_000_000)
        assert caught.value.code == "expression_too_costly"
    assert run(evaluator, COSTLY, n=5) == 5
    assert resident_bytes() - before < 64 * 2**20


def test_time_bomb_fails(quick_evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = "${{ lists.range(9000).filter(x, params.s.matches(params.p)).size() }}"
    with pytest.raises(ExpressionTooCostly, match="over 1 s"):
        run(quick_evaluator, bomb, s="x" * 1000, p="(x{1000}|y{900})z")
    # What takes no time fails too where its process stands still for a second.
    monkeypatch.setattr(vars(quick_evaluator)["_sandbox"], "_seconds", 100.0)
    assert run(quick_evaluator, COSTLY, n=5) == 5


@pytest.mark.parametrize(
    "expression",
    [
        "params.l.map(x, params.l.map(y, x + y)).size()",
        "lists.range(10001).exists(x, x < 0)",
        "params.l.all(a, params.l.all(b, params.l.all(c, a + b + c >= 0)))",
    ],
)
def test_iterations_are_bounded(evaluator: Evaluator, expression: str) -> None:
    with pytest.raises(ExpressionTooCostly, match="iterates too often") as caught:
        run(evaluator, f"${{{{ {expression} }}}}", l=list(range(200)))
    assert "10,000" in caught.value.hint


def test_result_is_bounded() -> None:
    with (
        Evaluator(Limits(max_output_bytes=1000)) as evaluator,
        pytest.raises(ExpressionTooCostly, match="more than 1000 bytes"),
    ):
        run(evaluator, "${{ lists.range(params.n) }}", n=1000)


def test_large_lists_are_mapped_in_linear_time_and_memory(evaluator: Evaluator) -> None:
    rows: list[Any] = [{"id": number, "mag": number / 7} for number in range(9900)]
    template = "${{ params.rows.map(r, r.id) }}"
    assert run(evaluator, template, rows=rows) == list(range(9900))


def test_nothing_is_started_for_cheap_expressions(evaluator: Evaluator) -> None:
    assert run(evaluator, "${{ params.l.map(x, x * 2) }}", l=[1]) == [2]
    assert not sandboxes()


def test_sandbox_gives_what_the_process_gives() -> None:
    values: list[Any] = [1, -(2**63), 1.5, "é\u2028", None, True, [], {"b": [None], "a": 2.0}]
    expressions = ["[params.v][0]", "[params.v].map(x, [x])", "params.v + 1", "1 / 0", "params.q"]
    with (
        Evaluator(Limits()) as inside,
        Evaluator(Limits(max_expression_cost=1)) as outside,
    ):
        for value in values:
            for expression in expressions:
                results: list[Any] = []
                for evaluator in (inside, outside):
                    try:
                        results.append(run(evaluator, f"${{{{ {expression} }}}}", v=value))
                    except ExpressionError as error:
                        results.append((error.code, error.message, error.hint))
                assert repr(results[0]) == repr(results[1])


def test_threads_share_an_evaluator(evaluator: Evaluator) -> None:
    cheap, costly = evaluator.compile("${{ params.n * 2 }}"), evaluator.compile(COSTLY)

    def both(number: int) -> tuple[Any, Any]:
        where = Scope({"n": number}, {}, {}, {})
        return evaluator.evaluate(cheap, where), evaluator.evaluate(costly, where)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(both, range(100))) == [(2 * each, each) for each in range(100)]
    assert len(sandboxes()) == 1


def test_a_bomb_in_one_thread_leaves_the_others_alone(evaluator: Evaluator) -> None:
    def attempt(number: int) -> Any:
        if number % 5:
            return run(evaluator, COSTLY, n=number)
        with pytest.raises(ExpressionTooCostly):
            run(evaluator, DOUBLING, s="x" * 1000)
        return None

    with ThreadPoolExecutor(4) as threads:
        expected = [each if each % 5 else None for each in range(12)]
        assert list(threads.map(attempt, range(12))) == expected


def test_a_killed_sandbox_is_started_again(evaluator: Evaluator) -> None:
    assert run(evaluator, COSTLY, n=3) == 3
    (child,) = sandboxes()
    os.kill(child, signal.SIGKILL)
    assert run(evaluator, COSTLY, n=4) == 4
    assert sandboxes() != [child]


def test_close_ends_the_sandbox(evaluator: Evaluator) -> None:
    assert run(evaluator, COSTLY, n=3) == 3
    evaluator.close()
    assert not sandboxes()
    assert run(evaluator, COSTLY, n=3) == 3


PROGRAM = """
import os, sys
from foundation.settings import Limits
from graph_defs.expressions import Evaluator, Scope

evaluator = Evaluator(Limits())
template = evaluator.compile("${{ lists.range(params.n).map(x, x).size() }}")
assert evaluator.evaluate(template, Scope({"n": 4}, {}, {}, {})) == 4
"""


def test_sandbox_dies_with_its_parent() -> None:
    program = PROGRAM + "print('ready', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"ready\n"
        (child,) = sandboxes(parent.pid)
        watched = os.pidfd_open(child)
        parent.kill()
        assert select.select([watched], [], [], 60)[0]
        os.close(watched)


def test_a_forked_process_gets_a_sandbox_of_its_own() -> None:
    program = f"""{PROGRAM}
child = os.fork()
if not child:
    got = evaluator.evaluate(template, Scope({{"n": 5}}, {{}}, {{}}, {{}}))
    evaluator.close()
    os._exit(0 if got == 5 else 1)
assert os.waitpid(child, 0)[1] == 0
assert evaluator.evaluate(template, Scope({{"n": 6}}, {{}}, {{}}, {{}})) == 6
evaluator.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_sandbox_imports_nothing_heavy() -> None:
    program = "import sys, graph_defs.cel.sandbox; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    modules = set(done.stdout.decode().split())
    assert not modules & {"dagster", "pydantic", "sqlalchemy", "psycopg", "graph_defs.expressions"}


ENVIRONMENT = Environment()

# Holes: v is any value, l a list, s a string, f one of the other expressions.
LEAVES = [
    "params.s",
    "params.l",
    "params.m",
    "1",
    "'abc'",
    "[params.s, params.l]",
    "{'k': params.l}",
]
STEPS = [
    "[{0}, {1}]",
    "{{'a': {0}, 'b': {1}}}",
    "[{0}].map(a, [a, {1}])",
    "[{0}, {1}].map(a, [a, a])",
    "params.l.map(a, [a, {0}])",
    "params.l.map(a, params.l.map(b, {0}))",
    "params.l.filter(a, a != {0}) + [{1}]",
    "params.m.map(k, [k, {0}])",
    "cel.bind(z, {0}, [z, z, z])",
    "(params.s == 'a' ? dyn({0}) : dyn({1}))",
    "[{0}].flatten()",
    "[[{0}], [{1}]].flatten(2)",
    "[{0}, {1}][0]",
    "params.s.replace('a', params.s) + 'x'",
    "params.s.replace('', params.s)",
    "params.s.split('')",
    "params.l.map(x, string(x)).join(params.s)",
    "'%s %s'.format([{0}, {1}])",
    "params.s.format([{0}])",
    "strings.quote(params.s)",
    "base64.encode(bytes(params.s))",
    "[{0}].distinct() + [{0}].reverse()",
    "params.l.sortBy(x, -x) + [{0}]",
    "lists.range(7).map(i, {0})",
    "'%.300f'.format([1e300])",
]


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    if not depth or draw(st.booleans()):
        return draw(st.sampled_from(LEAVES))
    step = draw(st.sampled_from(STEPS))
    return step.format(draw(expressions(depth - 1)), draw(expressions(depth - 1)))


@given(
    expressions(),
    st.text("a%séb\n", max_size=30),
    st.lists(st.integers(-9, 9), max_size=12),
    st.dictionaries(st.text("xyz", max_size=3), st.text(max_size=5), max_size=5),
)
@settings(deadline=None)
def test_no_result_is_larger_than_its_bound(
    source: str, text: str, numbers: list[int], members: dict[str, str]
) -> None:
    roots = {"params": {"s": text, "l": numbers, "m": dict.fromkeys(members, "v")}}
    checked = cel_ast.decode(ENVIRONMENT.compile(source))
    inputs = cel_inputs.extract(checked.expr)
    variables = {each.name: each.resolve(roots) for each in inputs.all}
    extents = {name: cel_values.measure(value) for name, value in variables.items()}
    bound = cel_cost.bound(checked.expr, extents)
    try:
        result = evaluate(ENVIRONMENT.load(cel_ast.encode(checked)), variables)
    except Exception as error:
        assert type(error).__name__ in {"EvaluationFault", "ValueFault"}
        return
    assert 4 * cel_values.measure(result).size <= bound
