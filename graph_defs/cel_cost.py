"""How much work an expression can be, at most, given the extent of its inputs.

Nothing in cel-cpp bounds memory: ``[s].map(a, a + a)`` written 25 times over makes 32 MiB of each
byte. So an upper bound is worked out from the syntax tree before anything is evaluated, by abstract
interpretation: each subexpression has a size (bytes of its value written out as a tree), a width
(elements of the longest container in it) and the work that it takes (bytes touched or allocated;
about as many nanoseconds). Every value counts `UNIT` bytes plus its text, so a container of ``size``
bytes has at most ``size / UNIT`` elements.

A loop over ``n`` elements e1…en of a range of ``R`` bytes costs f(e1) + … + f(en), where f is the cost
of the body. All bounds here are sums, products and maxima of non-negative terms, so f is convex and
grows with e, and since e1 + … + en <= R the sum is at most n f(0) + f(R) - f(0). (A minimum anywhere
would break that.) ``math.inf`` stands for what has no bound.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from graph_defs import cel_ast
from graph_defs.cel_ast import Expr
from graph_defs.cel_values import UNIT, Extent

_HANDLE: Final = 32
"""Bytes of one ``cel::Value`` in a list that is copied to append to it."""
_PATTERN: Final = 8 * 2**20
"""What RE2 may use to compile a pattern (its ``max_mem``)."""
_FORMATTED: Final = 1400
"""Characters of ``%.1000f`` of the largest double; a higher precision is refused."""


class Bound(NamedTuple):
    size: float
    width: float
    work: float


_SCALAR: Final = Bound(UNIT, 0, UNIT)
_UNBOUNDED: Final = Bound(math.inf, math.inf, math.inf)

# size <= UNIT, and work in proportion to what the arguments hold
_TO_SCALAR: Final = frozenset(
    "_&&_ _||_ !_ -_ _-_ _*_ _/_ _%_ _==_ _!=_ _<_ _<=_ _>_ _>=_ @in @not_strictly_false "
    "__not_strictly_false__ size type bool int uint double timestamp duration startsWith endsWith "
    "getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear getHours getMilliseconds getMinutes "
    "getMonth getSeconds".split()
)
# no larger than four times the receiver, and as wide
_LIKE_FIRST: Final = frozenset(
    "dyn string bytes lowerAscii upperAscii trim substring charAt reverse strings.quote base64.encode "
    "base64.decode slice _[_]".split()
)


def bound(root: Expr, variables: frozenset[str], given: Extent) -> float:
    """The work of evaluating ``root`` and converting its inputs and result, in bytes touched.

    ``variables`` are the names of its inputs; any one of them may be all of ``given``.
    """
    start = Bound(given.size, given.width, UNIT)
    result = _of(root, dict.fromkeys(variables, start))
    return 4 * given.size + result.work + result.size


def _of(expr: Expr, scope: Mapping[str, Bound]) -> Bound:
    match cel_ast.kind_of(expr):
        case "const_expr":
            return Bound(UNIT + _text(expr), 0, UNIT)
        case "ident_expr":
            return scope.get(expr.ident_expr.name, _SCALAR)
        case "select_expr":
            inner = _of(expr.select_expr.operand, scope)
            return inner._replace(work=inner.work + UNIT)
        case "list_expr":
            return _container([_of(each, scope) for each in expr.list_expr.elements])
        case "struct_expr":
            parts = [
                _of(each, scope)
                for entry in expr.struct_expr.entries
                for each in (entry.map_key, entry.value)
            ]
            return _container(parts)
        case "call_expr":
            return _call(expr.call_expr, scope)
        case "comprehension_expr":
            return _fold(expr.comprehension_expr, scope)
        case _:
            return _UNBOUNDED


def _text(expr: Expr) -> int:
    constant = expr.const_expr
    match constant.WhichOneof("constant_kind"):
        case "string_value":
            return len(constant.string_value.encode())
        case "bytes_value":
            return len(constant.bytes_value)
        case _:
            return 0


def _container(parts: list[Bound]) -> Bound:
    return Bound(
        UNIT + sum(part.size for part in parts),
        max([len(parts), *(part.width for part in parts)]),
        UNIT + sum(part.work + _HANDLE for part in parts),
    )


def _call(call: Any, scope: Mapping[str, Bound]) -> Bound:
    operands = cel_ast.arguments(call)
    args = [_of(each, scope) for each in operands]
    work = UNIT + sum(arg.work for arg in args)
    total = sum(arg.size for arg in args)
    name = str(call.function)
    if name in _TO_SCALAR or name.startswith("math."):
        return Bound(UNIT, 0, work + total)
    if name in _LIKE_FIRST:
        size = 4 * args[0].size
        if name == "_[_]":
            return Bound(args[0].size, args[0].width, work)
        return Bound(size, args[0].width, work + size)
    match name:
        case "_+_":
            return Bound(total, sum(arg.width for arg in args), work + total)
        case "_?_:_":
            return Bound(
                max(args[1].size, args[2].size), max(args[1].width, args[2].width), work
            )
        case "matches":
            return Bound(UNIT, 0, work + total + _matching(operands[1], args))
        case _:
            return _library(name, operands, args, work)


def _matching(pattern: Expr, args: list[Bound]) -> float:
    text = cel_ast.string_constant(pattern)
    small = text is not None and "{" not in text and "\\" not in text
    compiling = 16 * 1024 + 1024 * args[1].size if small else _PATTERN
    return compiling + args[0].size * args[1].size


def _library(name: str, operands: list[Expr], args: list[Bound], work: float) -> Bound:
    first = args[0] if args else _SCALAR
    second = args[1] if len(args) > 1 else _SCALAR
    match name:
        case "contains" | "indexOf" | "lastIndexOf":
            return Bound(UNIT, 0, work + first.size * second.size)
        case "replace":
            size = first.size * (1 + args[2].size)
            return Bound(size, 0, work + size + first.size * second.size)
        case "split":
            size = first.size * (1 + UNIT)
            return Bound(size, first.size, work + size + first.size * second.size)
        case "join":
            size = first.size + first.width * second.size
            return Bound(size, 0, work + size)
        case "format":
            text = cel_ast.string_constant(operands[0])
            directives = first.size if text is None else text.count("%")
            size = first.size + 8 * second.size + _FORMATTED * directives
            return Bound(size, 0, work + size)
        case "flatten":
            return Bound(first.size, first.size / UNIT, work + first.size)
        case "sort" | "@sortByAssociatedKeys":
            return Bound(first.size, first.width, work + 64 * (first.size + second.size))
        case "distinct":
            return Bound(first.size, first.width, work + first.width * first.size)
        case "sets.contains" | "sets.equivalent" | "sets.intersects":
            pairs = first.width * second.size + second.width * first.size
            return Bound(UNIT, 0, work + 2 * pairs)
        case "lists.range":
            return _range(operands[0], work)
        case _:
            return _UNBOUNDED


def _range(count: Expr, work: float) -> Bound:
    if cel_ast.kind_of(count) != "const_expr":
        return _UNBOUNDED
    elements = max(0, count.const_expr.int64_value)
    return Bound(UNIT * (1 + elements), elements, work + UNIT * elements)


def _fold(fold: Any, scope: Mapping[str, Bound]) -> Bound:
    initial = _of(fold.accu_init, scope)
    if cel_ast.is_empty_list(fold.iter_range):  # cel.bind: no iterations, a name for a value
        result = _of(fold.result, {**scope, fold.accu_var: initial._replace(work=UNIT)})
        return result._replace(work=result.work + initial.work)
    looped = _of(fold.iter_range, scope)
    count = looped.width
    least = _step(fold, scope, Bound(0, looped.width, UNIT))
    most = _step(fold, scope, Bound(looped.size, looped.width, UNIT))
    grown = Bound(
        initial.size + _summed(count, least.size, most.size),
        max(count, most.width, initial.width),
        UNIT,
    )
    result = _of(fold.result, {**scope, fold.accu_var: grown})
    # A map's keys are appended one by one to a list that is copied each time: cel_folds.
    copying = _HANDLE * count * count / 2 if cel_ast.is_empty_list(fold.accu_init) else 0.0
    work = looped.work + initial.work + _summed(count, least.work, most.work) + copying
    return Bound(result.size, result.width, work + result.work)


def _summed(count: float, least: float, most: float) -> float:
    return math.inf if math.isinf(most) else count * least + (most - least)


def _step(fold: Any, scope: Mapping[str, Bound], element: Bound) -> Bound:
    """One iteration over ``element``: by how much the accumulator grows, and the work of it.

    The accumulator itself is taken to be empty: no macro's body but the macro itself uses it, and
    `_growth` knows the ways in which they do.
    """
    inside = {**scope, fold.iter_var: element, fold.accu_var: Bound(0, 0, UNIT)}
    growth = _growth(fold.loop_step, fold.accu_var, inside)
    condition = _of(fold.loop_condition, inside)
    return growth._replace(work=growth.work + condition.work)


def _growth(step: Expr, accumulator: str, scope: Mapping[str, Bound]) -> Bound:
    if cel_ast.is_ident(step, accumulator):
        return Bound(0, 0, UNIT)
    if cel_ast.kind_of(step) != "call_expr":
        return _UNBOUNDED
    args = cel_ast.arguments(step.call_expr)
    match step.call_expr.function:
        case "_||_" | "_&&_":
            return _of(step, scope)._replace(size=0, width=0)
        case "_+_" if cel_ast.is_ident(args[0], accumulator):
            return _of(args[1], scope)
        case "_?_:_":
            condition = _of(args[0], scope)
            branches = [_growth(each, accumulator, scope) for each in args[1:]]
            return Bound(
                max(each.size for each in branches),
                max(each.width for each in branches),
                UNIT + condition.work + sum(each.work for each in branches),
            )
        case _:
            return _UNBOUNDED
