"""One compiled expression: what it reads, what it may cost, and how it is evaluated."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from graph_defs.cel import ast as cel_ast
from graph_defs.cel import cost as cel_cost
from graph_defs.cel import folds as cel_folds
from graph_defs.cel import inputs as cel_inputs
from graph_defs.cel import runtime as cel_runtime
from graph_defs.cel import values as cel_values
from graph_defs.cel.faults import CompileFault, NotQuick
from graph_defs.cel.inputs import ABSENT, Input
from graph_defs.cel.runtime import Environment
from graph_defs.cel.sandbox_client import Sandbox
from graph_defs.cel.values import Extent


class Program:
    """A CEL expression, ready to be evaluated any number of times. Threads may share it.

    ``references`` are the ids of the nodes that it reads, ``secrets`` the names of the secrets,
    ``roots`` the names that its paths start with, ``inputs`` all its variables.
    Raises `CompileFault`.
    """

    def __init__(self, source: str, environment: Environment) -> None:
        self.source = source
        try:
            checked = cel_ast.decode(environment.compile(source))
        except DecodeError:
            raise CompileFault(
                "the expression is nested too deeply", cel_runtime.DEPTH_HINT
            ) from None
        found = cel_inputs.extract(checked.expr)
        self.references = found.references
        self.secrets = found.secrets
        self.roots = found.roots
        self.inputs = found.all
        self._root = checked.expr
        self._only = _only_input(checked.expr, found.all)
        self._tree = _faster(cel_ast.encode(checked))
        self._program = environment.load(self._tree)
        self._bounds: dict[tuple[tuple[str, int, int], ...], float] = {}

    def evaluate(self, roots: Mapping[str, Any], max_cost: int, sandbox: Sandbox) -> Any:
        """The value, as JSON, over ``roots`` (params, nodes, … -> JSON).

        A bare path gives the very object that it leads to. Over ``max_cost`` (see `cel_cost`) the
        evaluation moves into ``sandbox``. Raises `EvaluationFault`, `ValueFault`, `CostFault` and
        `SandboxLost`.
        """
        variables = self._variables(roots)
        if self._only and self._only.name in variables:
            return variables[self._only.name]
        extents = {name: cel_values.measure(value) for name, value in variables.items()}
        if self._bound(extents) <= max_cost:
            return cel_runtime.evaluate(self._program, variables)
        return sandbox.evaluate(self._tree, variables)

    def evaluate_quickly(self, roots: Mapping[str, Any], max_cost: int) -> Any:
        """The same in any case at once: raises `NotQuick` where the cost may be over ``max_cost``,
        or there is more data than that to be measured.
        """
        variables = self._variables(roots)
        if self._only and self._only.name in variables:
            return variables[self._only.name]
        extents = {name: cel_values.measure(value, max_cost) for name, value in variables.items()}
        if self._bound(extents) > max_cost:
            raise NotQuick
        return cel_runtime.evaluate(self._program, variables)

    def _variables(self, roots: Mapping[str, Any]) -> dict[str, Any]:
        variables: dict[str, Any] = {}
        for each in self.inputs:
            value = each.resolve(roots)
            if value is not ABSENT:
                variables[each.name] = value
        return variables

    def _bound(self, extents: Mapping[str, Extent]) -> float:
        # Rounded up to powers of two, so that the tree is rarely walked again.
        key = tuple(
            (name, each.size.bit_length(), each.width.bit_length())
            for name, each in extents.items()
        )
        bound = self._bounds.get(key)
        if bound is None:
            rounded = {name: Extent(1 << size, 1 << width) for name, size, width in key}
            bound = self._bounds[key] = cel_cost.bound(self._root, rounded)
        return bound


def _only_input(root: cel_ast.Expr, inputs: tuple[Input, ...]) -> Input | None:
    """The input, if the whole expression is nothing else, so that there is nothing to evaluate."""
    return next((each for each in inputs if cel_ast.is_ident(root, each.name)), None)


def _faster(tree: bytes) -> bytes:
    """`cel_folds.rewrite`, where that does not nest deeper than protobuf reads."""
    try:
        checked = cel_ast.decode(tree)
        cel_folds.rewrite(checked.expr)
        rewritten = cel_ast.encode(checked)
        cel_ast.decode(rewritten)
    except DecodeError:
        return tree
    return rewritten
