"""How much work an expression can be, at most, given the extent of its inputs.

Nothing in cel-cpp bounds memory: ``[s].map(a, a + a)`` written 25 times over makes 32 MiB of each
byte. So an upper bound is worked out from the syntax tree before anything is evaluated, by abstract
interpretation: each subexpression has a size (bytes of its value, written out as a tree), a width
(elements of the longest container in it) and the work that it takes (bytes touched or allocated,
which is about as many nanoseconds). Every value counts `UNIT` bytes plus its text.

A loop over elements e1 … en of a range of R bytes costs f(e1) + … + f(en), where f is the cost of
the body. All bounds here are sums, products and maxima of terms that are not negative, so f grows
and is convex, and since e1 + … + en <= R the sum is at most n f(0) + f(R) - f(0). A minimum
anywhere would break that. ``math.inf`` stands for what has no bound.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from graph_defs.cel import ast as cel_ast
from graph_defs.cel.ast import Expr
from graph_defs.cel.cost_functions import SCALAR, UNBOUNDED, Bound, bound_of_call
from graph_defs.cel.values import UNIT, Extent

_HANDLE: Final = 32
"""Bytes of one ``cel::Value`` in a list that is copied to append to it."""
_CONVERTED: Final = 4
"""Work of making a CEL value of JSON, per byte."""
_LOOPS: Final = 6
"""Nested loops that are looked into: each doubles the work of working the bound out."""


def bound(root: Expr, inputs: Mapping[str, Extent]) -> float:
    """The work of evaluating ``root`` and of converting its inputs and its result."""
    scope = {name: Bound(given.size, given.width, UNIT) for name, given in inputs.items()}
    result = _of(root, scope, _LOOPS)
    converting = _CONVERTED * (sum(given.size for given in inputs.values()) + result.size)
    return converting + result.work


def _of(expr: Expr, scope: Mapping[str, Bound], loops: int) -> Bound:
    match cel_ast.kind_of(expr):
        case "const_expr":
            made = Bound(UNIT + cel_ast.text_size(expr), 0, UNIT)
        case "ident_expr":
            made = scope.get(expr.ident_expr.name, SCALAR)
        case "select_expr":
            inner = _of(expr.select_expr.operand, scope, loops)
            made = inner._replace(work=inner.work + UNIT)
        case "list_expr" | "struct_expr":
            made = _container([_of(each, scope, loops) for each in cel_ast.children(expr)])
        case "call_expr":
            operands = cel_ast.children(expr)
            args = [_of(each, scope, loops) for each in operands]
            made = bound_of_call(expr.call_expr.function, operands, args)
        case "comprehension_expr":
            made = _fold(expr.comprehension_expr, scope, loops)
        case _:
            made = UNBOUNDED
    return made


def _container(parts: list[Bound]) -> Bound:
    return Bound(
        UNIT + sum(part.size for part in parts),
        max([len(parts), *(part.width for part in parts)]),
        UNIT + sum(part.work + _HANDLE for part in parts),
    )


def _fold(fold: Any, scope: Mapping[str, Bound], loops: int) -> Bound:
    initial = _of(fold.accu_init, scope, loops)
    if cel_ast.is_empty_list(fold.iter_range):  # cel.bind: no iterations, a name for a value
        result = _of(fold.result, {**scope, fold.accu_var: initial._replace(work=UNIT)}, loops)
        return result._replace(work=result.work + initial.work)
    if not loops:
        return UNBOUNDED
    looped = _of(fold.iter_range, scope, loops)
    count = looped.width
    least = _step(fold, scope, Bound(0, looped.width, UNIT), loops - 1)
    most = _step(fold, scope, Bound(looped.size, looped.width, UNIT), loops - 1)
    grown = Bound(
        initial.size + _summed(count, least.size, most.size),
        max(count, most.width, initial.width),
        UNIT,
    )
    result = _of(fold.result, {**scope, fold.accu_var: grown}, loops)
    # cel_folds makes this less for lists, not for the keys of a map.
    copying = _HANDLE * count * count / 2 if cel_ast.is_empty_list(fold.accu_init) else 0.0
    work = looped.work + initial.work + _summed(count, least.work, most.work) + copying
    return Bound(result.size, result.width, work + result.work)


def _summed(count: float, least: float, most: float) -> float:
    if math.isinf(count) or math.isinf(most):
        return math.inf
    return count * least + (most - least)


def _step(fold: Any, scope: Mapping[str, Bound], element: Bound, loops: int) -> Bound:
    """One iteration over ``element``: by how much the accumulator grows, and the work of it.

    The accumulator itself is taken to be empty, since a macro's body cannot name it and `_growth`
    knows each way in which the macros use it.
    """
    inside = {**scope, fold.iter_var: element, fold.accu_var: Bound(0, 0, UNIT)}
    growth = _growth(fold.loop_step, fold.accu_var, inside, loops)
    condition = _of(fold.loop_condition, inside, loops)
    return growth._replace(work=growth.work + condition.work)


def _growth(step: Expr, accumulator: str, scope: Mapping[str, Bound], loops: int) -> Bound:
    if cel_ast.is_ident(step, accumulator):
        return Bound(0, 0, UNIT)
    if cel_ast.kind_of(step) != "call_expr":
        return UNBOUNDED
    args = cel_ast.children(step)
    match step.call_expr.function:
        case "_||_" | "_&&_":
            return _of(step, scope, loops)._replace(size=0, width=0)
        case "_+_" if cel_ast.is_ident(args[0], accumulator):
            return _of(args[1], scope, loops)
        case "_?_:_":
            condition = _of(args[0], scope, loops)
            yes, no = (_growth(each, accumulator, scope, loops) for each in args[1:])
            work = UNIT + condition.work + yes.work + no.work
            return Bound(max(yes.size, no.size), max(yes.width, no.width), work)
        case _:
            return UNBOUNDED
