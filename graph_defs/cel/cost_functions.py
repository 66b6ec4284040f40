"""The bound of each CEL function, from the bounds of its arguments; see cel_cost.

A function that is not listed has no bound, so that one which a new release of cel-cpp adds runs in
the sandbox until somebody has looked at it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from graph_defs.cel import ast as cel_ast
from graph_defs.cel.ast import Expr
from graph_defs.cel.values import UNIT

_PATTERN: Final = 8 * 2**20
"""What RE2 may use to compile a pattern (its ``max_mem``)."""
_FORMATTED: Final = 1400
"""Characters of ``%.1000f`` of the largest double; a higher precision is refused."""


class Bound(NamedTuple):
    """Of a value: its size in bytes, the elements of its longest container, the work to make it."""

    size: float
    width: float
    work: float


SCALAR: Final = Bound(UNIT, 0, UNIT)
UNBOUNDED: Final = Bound(math.inf, math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _Call:
    operands: list[Expr]
    args: list[Bound]

    @property
    def first(self) -> Bound:
        return self.args[0]

    @property
    def second(self) -> Bound:
        return self.args[1]

    @property
    def total(self) -> float:
        return sum(arg.size for arg in self.args)


def bound_of_call(name: str, operands: list[Expr], args: list[Bound]) -> Bound:
    """``operands`` and their bounds ``args`` have the receiver of a method first."""
    rule = _to_scalar if name.startswith("math.") else _RULES.get(name)
    if rule is None or not args:
        return UNBOUNDED
    made = rule(_Call(operands, args))
    return made._replace(work=UNIT + sum(arg.work for arg in args) + made.work)


def _to_scalar(call: _Call) -> Bound:
    return Bound(UNIT, 0, call.total)


def _like_first(call: _Call) -> Bound:
    """Four times is the worst of them: base64, quoting, decoding."""
    return Bound(4 * call.first.size, call.first.width, 4 * call.first.size)


def _element(call: _Call) -> Bound:
    return Bound(call.first.size, call.first.width, 0)


def _concatenated(call: _Call) -> Bound:
    return Bound(call.total, sum(arg.width for arg in call.args), call.total)


def _either(call: _Call) -> Bound:
    _, yes, no = call.args
    return Bound(max(yes.size, no.size), max(yes.width, no.width), 0)


def _matched(call: _Call) -> Bound:
    pattern = cel_ast.string_constant(call.operands[1])
    small = pattern is not None and "{" not in pattern and "\\" not in pattern
    compiling = 16 * 1024 + 1024 * call.second.size if small else _PATTERN
    return Bound(UNIT, 0, compiling + call.first.size * call.second.size)


def _searched(call: _Call) -> Bound:
    return Bound(UNIT, 0, call.first.size * call.second.size)


def _replaced(call: _Call) -> Bound:
    size = call.first.size * (1 + call.args[2].size)
    return Bound(size, 0, size + call.first.size * call.second.size)


def _split(call: _Call) -> Bound:
    size = call.first.size * (1 + UNIT)
    return Bound(size, call.first.size, size + call.first.size * call.second.size)


def _joined(call: _Call) -> Bound:
    separator = call.second.size if len(call.args) > 1 else 0
    size = call.first.size + call.first.width * separator
    return Bound(size, 0, size)


def _formatted(call: _Call) -> Bound:
    text = cel_ast.string_constant(call.operands[0])
    directives = call.first.size if text is None else text.count("%")
    size = call.first.size + 8 * call.second.size + _FORMATTED * directives
    return Bound(size, 0, size)


def _flattened(call: _Call) -> Bound:
    return Bound(call.first.size, call.first.size / UNIT, call.first.size)


def _sorted(call: _Call) -> Bound:
    return Bound(call.first.size, call.first.width, 64 * call.total)


def _distinct(call: _Call) -> Bound:
    return Bound(call.first.size, call.first.width, call.first.width * call.first.size)


def _compared_sets(call: _Call) -> Bound:
    first, second = call.first, call.second
    pairs = first.width * second.size + second.width * first.size
    return Bound(UNIT, 0, call.total + 2 * pairs)


def _counted(call: _Call) -> Bound:
    """lists.range(n): the one function whose result grows with a number's value."""
    count = call.operands[0]
    if cel_ast.kind_of(count) != "const_expr":
        return UNBOUNDED
    elements = max(0, count.const_expr.int64_value)
    return Bound(UNIT * (1 + elements), elements, UNIT * elements)


_SCALARS: Final = """
    _&&_ _||_ !_ -_ _-_ _*_ _/_ _%_ _==_ _!=_ _<_ _<=_ _>_ _>=_ @in @not_strictly_false
    __not_strictly_false__ size type bool int uint double timestamp duration startsWith endsWith
    getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear getHours getMilliseconds getMinutes
    getMonth getSeconds
"""
_CHANGED: Final = """
    dyn string bytes lowerAscii upperAscii trim substring charAt reverse strings.quote base64.encode
    base64.decode slice
"""
_RULES: Final[dict[str, Callable[[_Call], Bound]]] = {
    **dict.fromkeys(_SCALARS.split(), _to_scalar),
    **dict.fromkeys(_CHANGED.split(), _like_first),
    "_[_]": _element,
    "_+_": _concatenated,
    "_?_:_": _either,
    "matches": _matched,
    "contains": _searched,
    "indexOf": _searched,
    "lastIndexOf": _searched,
    "replace": _replaced,
    "split": _split,
    "join": _joined,
    "format": _formatted,
    "flatten": _flattened,
    "sort": _sorted,
    "@sortByAssociatedKeys": _sorted,
    "distinct": _distinct,
    "sets.contains": _compared_sets,
    "sets.equivalent": _compared_sets,
    "sets.intersects": _compared_sets,
    "lists.range": _counted,
}
