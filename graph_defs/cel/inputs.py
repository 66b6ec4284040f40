"""What an expression reads: its paths into the scope, found in the syntax tree and made variables.

``nodes.read.output.rows`` becomes one variable, so that only the rows are converted to CEL, not
every output of the run; and since each reference to a node is then known before the run, validation
can check that the node is upstream. The same goes for the names of secrets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from graph_defs.cel import ast as cel_ast
from graph_defs.cel.ast import Expr
from graph_defs.cel.faults import CompileFault
from graph_defs.cel.runtime import ROOTS
from graph_defs.names import is_node_name

_OF_A_NODE: Final = ("output", "status", "error")

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
                if position == 2 and self.path[0] == "nodes":
                    return _no_output(self.path[1], members["status"])
                return _missing(where, key, list(members))
            value = members[key]
        return f"{'.'.join(self.path)} has no value", ""


def _no_output(node: str, status: str) -> tuple[str, str]:
    ended = "failed" if status == "failed" else "was skipped"
    return (
        f'node "{node}" {ended}, so it has no output',
        f"Test with has(nodes.{node}.output); nodes.{node}.status says how it ended.",
    )


def _missing(where: str, key: str, present: list[str]) -> tuple[str, str]:
    if where == "nodes":
        return (
            f'node "{key}" has no output in this run',
            "It is not upstream, or was left out of this run.",
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
    """Every input of an expression, the nodes and the secrets that it names, and its roots."""

    all: tuple[Input, ...]
    references: frozenset[str]
    secrets: frozenset[str]
    roots: frozenset[str]


def extract(root: Expr) -> Inputs:
    """Replaces the paths in ``root`` (changed in place) by variables ``@0``, ``@1``, …

    Raises `CompileFault` for what cannot be checked before the run.
    """
    collector = _Collector()
    collector.visit(root, frozenset())
    found = tuple(collector.inputs.values())
    return Inputs(
        found,
        references=frozenset(each.path[1] for each in found if each.path[0] == "nodes"),
        secrets=frozenset(each.path[1] for each in found if each.path[0] == "secrets"),
        roots=frozenset(each.path[0] for each in found),
    )


class _Collector:
    def __init__(self) -> None:
        self.inputs: dict[tuple[tuple[str, ...], bool], Input] = {}
        self._next_id = cel_ast.FIRST_INPUT_ID

    def visit(self, expr: Expr, bound: frozenset[str]) -> None:
        path = _path(expr, bound)
        if path:
            tests = cel_ast.kind_of(expr) == "select_expr" and expr.select_expr.test_only
            _check(path, tests=tests)
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


def _check(path: tuple[str, ...], *, tests: bool) -> None:
    if path[0] == "nodes":
        _check_node(path)
    elif path[0] == "secrets":
        _check_secret(path, tests=tests)


def _check_node(path: tuple[str, ...]) -> None:
    if len(path) == 1:
        raise CompileFault(
            "nodes must be followed by the id of one node",
            'Write nodes.<id>.output or nodes["<id>"].output, so that it can be checked before the '
            "run that the node is upstream.",
        )
    if len(path) > 2 and path[2] not in _OF_A_NODE:
        raise CompileFault(
            f'a node has no field "{path[2]}"',
            f"Its result is nodes.{path[1]}.output; it also has a status and an error.",
        )


def _check_secret(path: tuple[str, ...], *, tests: bool) -> None:
    if len(path) == 1:
        raise CompileFault(
            "secrets must be followed by the name of one secret",
            "Write secrets.NAME, so that it is known before the run which secrets a node reads.",
        )
    if not is_node_name(path[1]):
        raise CompileFault(
            f'no secret has the name "{path[1]}"',
            "A name has 1 to 63 letters, digits and underscores, and does not start with a digit.",
        )
    if len(path) > 2:
        raise CompileFault("a secret is a string, which has no fields", f"Write secrets.{path[1]}.")
    if tests:
        raise CompileFault(
            "whether a secret is set cannot be tested",
            "A node whose secret is missing fails with the code missing_secret.",
        )
