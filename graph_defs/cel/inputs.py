"""What an expression reads: its paths into the scope, found in the syntax tree and made variables.

``nodes.read.output.rows`` becomes one variable, so that only the rows are converted to CEL, not
every output of the run; and since each reference to a node is then known before the run, validation
can check that the node is upstream.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from graph_defs.cel import ast as cel_ast
from graph_defs.cel.ast import Expr
from graph_defs.cel.faults import CompileFault
from graph_defs.cel.runtime import ROOTS

ABSENT = object()
"""What `Input.resolve` gives where there is nothing: the variable stays unset, and CEL's rules for
errors (``||`` and ``&&`` absorb them) apply as they would to a missing key."""


@dataclass(frozen=True, slots=True)
class Input:
    """A variable of the rewritten expression: the value at ``path``, or whether there is one.

    ``tests`` is true for ``has(path)``.
    """

    name: str
    path: tuple[str, ...]
    tests: bool

    def resolve(self, roots: Mapping[str, Any]) -> Any:
        """The value in ``roots`` (root -> JSON), a bool for ``has``, or `ABSENT`."""
        value: Any = roots
        last = len(self.path) - 1
        for position, key in enumerate(self.path):
            if not isinstance(value, dict):
                return ABSENT
            members = cast("dict[str, Any]", value)
            if self.tests and position == last:
                return key in members
            if key not in members:
                return ABSENT
            value = members[key]
        return value

    def explain(self, roots: Mapping[str, Any]) -> tuple[str, str]:
        """Why `resolve` gave `ABSENT`, as message and hint."""
        value: Any = roots
        for position, key in enumerate(self.path):
            where = ".".join(self.path[:position])
            if not isinstance(value, dict):
                return f"{where} is {_described(value)}, which has no fields", ""
            members = cast("dict[str, Any]", value)
            if key not in members:
                return _missing(where, key, list(members))
            value = members[key]
        return f"{'.'.join(self.path)} has no value", ""


def _missing(where: str, key: str, present: list[str]) -> tuple[str, str]:
    if where == "nodes":
        return (
            f'node "{key}" has no output in this run',
            "It was skipped, failed, or is not upstream.",
        )
    known = ", ".join(sorted(present)[:8]) or "none"
    test = f"has({where}.{key})" if key.isidentifier() else f'"{key}" in {where}'
    return (
        f'{where} has no key "{key}"',
        f"Its keys are: {known}. Test with {test} where it may be missing.",
    )


_KINDS: Final = (
    (bool, "a bool"),
    (int, "an int"),
    (float, "a double"),
    (str, "a string"),
    (list, "a list"),
)


def _described(value: object) -> str:
    if value is None:
        return "null"
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return "no object"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Every input of an expression, and the ids of the nodes that it refers to."""

    all: tuple[Input, ...]
    references: frozenset[str]


def extract(root: Expr) -> Inputs:
    """Replaces the paths in ``root`` (changed in place) by variables ``@0``, ``@1``, …

    Raises `CompileFault` for what cannot be checked before the run.
    """
    collector = _Collector()
    collector.visit(root, frozenset())
    found = tuple(collector.inputs.values())
    return Inputs(found, frozenset(each.path[1] for each in found if each.path[0] == "nodes"))


class _Collector:
    def __init__(self) -> None:
        self.inputs: dict[tuple[tuple[str, ...], bool], Input] = {}
        self._next_id = cel_ast.FIRST_INPUT_ID

    def visit(self, expr: Expr, bound: frozenset[str]) -> None:
        path = _path(expr, bound)
        if path:
            tests = cel_ast.kind_of(expr) == "select_expr" and expr.select_expr.test_only
            _check(path)
            name = f"@{len(self.inputs)}"
            found = self.inputs.setdefault((path, tests), Input(name, path, tests))
            expr.ident_expr.name = found.name
            # The tree's table of references knows the old id under its old name.
            self._next_id += 1
            expr.id = self._next_id
            return
        if cel_ast.kind_of(expr) == "comprehension_expr":
            self._visit_fold(expr.comprehension_expr, bound)
            return
        if expr.struct_expr.message_name:
            raise CompileFault(
                f"{expr.struct_expr.message_name} is a protobuf message, no JSON",
                "Write an object: {'key': value}.",
            )
        for each in cel_ast.children(expr):
            self.visit(each, bound)

    def _visit_fold(self, fold: Any, bound: frozenset[str]) -> None:
        self.visit(fold.iter_range, bound)
        self.visit(fold.accu_init, bound)
        inside = bound | {fold.iter_var, fold.accu_var}
        self.visit(fold.loop_condition, inside)
        self.visit(fold.loop_step, inside)
        self.visit(fold.result, bound | {fold.accu_var})


def _path(expr: Expr, bound: frozenset[str]) -> tuple[str, ...] | None:
    """The path that the expression is, if constant keys lead to a root that is not shadowed."""
    keys: list[str] = []
    while True:
        match cel_ast.kind_of(expr):
            case "select_expr" if not expr.select_expr.test_only or not keys:
                keys.append(expr.select_expr.field)
                expr = expr.select_expr.operand
            case "call_expr" if expr.call_expr.function == "_[_]":
                container, key = cel_ast.children(expr)
                constant = cel_ast.string_constant(key)
                if constant is None:
                    return None
                keys.append(constant)
                expr = container
            case "ident_expr":
                name = expr.ident_expr.name
                # A leading dot is CEL's way around a comprehension's variable of the same name.
                root = name.removeprefix(".")
                if root not in ROOTS or name in bound:
                    return None
                return (root, *reversed(keys))
            case _:
                return None


def _check(path: tuple[str, ...]) -> None:
    if path[0] != "nodes":
        return
    if len(path) == 1:
        raise CompileFault(
            "nodes must be followed by the id of one node",
            'Write nodes.<id>.output or nodes["<id>"].output, so that it can be checked before the '
            "run that the node is upstream.",
        )
    if len(path) > 2 and path[2] != "output":
        raise CompileFault(
            f'a node has no field "{path[2]}"', f"Its result is nodes.{path[1]}.output."
        )
