"""Expressions in a graph: ``${{ CEL }}`` anywhere inside a JSON value.

docs/expressions.md is the user's guide. A string that is exactly one expression takes the type of
its value; in a longer string the value is written out. `Evaluator` compiles a JSON value once into
a `Template`, and evaluates that for each node and run.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, TypedDict

import orjson

from foundation.errors import GraphwrightError, Invalid
from foundation.ids import NodeId
from foundation.settings import Limits
from graph_defs.cel import messages as cel_messages
from graph_defs.cel import template as cel_template
from graph_defs.cel.faults import CostFault, EvaluationFault, NotQuick, ValueFault
from graph_defs.cel.program import Program
from graph_defs.cel.runtime import Environment
from graph_defs.cel.sandbox_client import Sandbox, SandboxLost
from graph_defs.cel.template import (
    Array,
    Object,
    Part,
    Slot,
    Template,
    TemplateParser,
    Text,
    quoted,
)
from graph_defs.json_values import Json, JsonObject

__all__ = [
    "Ended",
    "Evaluator",
    "ExpressionError",
    "ExpressionTooCostly",
    "NotQuick",
    "Scope",
    "Template",
]

_SECONDS: Final = 10.0
_QUICK_COST: Final = 128 * 2**10
"""Bytes touched, as `cel_cost` estimates them: at most some 300 µs."""

_Run: TypeAlias = Callable[[Program, Mapping[str, Any]], Json]

_ITERATIONS_HINT: Final = (
    "One expression may iterate 10,000 times in all, counting nested comprehensions; "
    "filter earlier, or split it over several nodes."
)


class ExpressionError(GraphwrightError):
    """An expression failed on its data. The message names it; ``ids`` hold it and its pointer."""

    code: ClassVar[str] = "expression_failed"
    status: ClassVar[int] = 422


class ExpressionTooCostly(ExpressionError):
    """An expression needed more memory, time or iterations than the installation gives it."""

    code: ClassVar[str] = "expression_too_costly"


class Ended(TypedDict):
    """What expressions see of a node that ended without an output."""

    status: Literal["failed", "skipped"]
    error: Mapping[str, Json] | None
    """``code``, ``message`` and ``hint`` of what it failed by."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What expressions see. ``nodes`` maps ids to outputs, seen as ``nodes.<id>.output``.

    ``without_output`` has the nodes that ended without one, each as :class:`Ended` says. Both are
    read when an expression is evaluated, and only as far as the expression asks. ``secrets`` maps
    names to values, for a template that names secrets: at least those.
    """

    params: JsonObject
    nodes: Mapping[NodeId, Any] | Mapping[str, Any]
    run: JsonObject
    trigger: JsonObject
    without_output: Mapping[NodeId, Ended] | Mapping[str, Ended] = field(
        default_factory=dict[str, Ended]
    )
    secrets: dict[str, str] = field(default_factory=dict[str, str], repr=False)


class Evaluator:
    """Compiles and evaluates templates. Threads may share it.

    Up to ``limits.max_expression_cost`` an expression is evaluated in this process, past it in a
    child process with bounded memory and time, which is started when first needed; `close` ends it.
    Compiled expressions are kept by their source, at most ``compiled`` of them.
    """

    def __init__(self, limits: Limits, compiled: int = 2048) -> None:
        self._limits = limits
        self._environment = Environment()
        self._sandbox = Sandbox(
            limits.max_expression_memory_bytes,
            limits.max_expression_seconds,
            limits.max_output_bytes,
        )
        self._capacity = compiled
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child process, if one was started."""
        self._sandbox.close()

    def compile(self, value: Json) -> Template:
        """Compiles every expression in ``value``. What does not compile is in the ``faults``."""
        limits = self._limits
        parser = TemplateParser(self._program, limits.max_expression_length, limits.max_depth)
        return parser.parse(value)

    def evaluate(
        self, template: Template, scope: Scope, *, within_seconds: float = math.inf
    ) -> Json:
        """The template's value in ``scope``, a JSON value.

        Parts that are literal or passed through are shared with the template and the scope: treat
        the result as immutable. Raises `ExpressionError`, and `Invalid` where the template has
        faults. `ExpressionTooCostly` it is also where an expression has not begun after
        ``within_seconds``, since those before it took so long.
        """
        if template.faults:
            raise Invalid("The expressions do not compile.", template.faults)
        ends_at = time.monotonic() + within_seconds

        def run(program: Program, roots: Mapping[str, Any]) -> Json:
            if time.monotonic() > ends_at:
                raise CostFault("all expressions together take too long", "Do less in them.")
            return self._anywhere(program, roots)

        return self._part(template.part, scope, self._anywhere if ends_at == math.inf else run)

    def evaluate_in_time(self, template: Template, scope: Scope) -> Json:
        """The same, for those who keep others waiting: in some 15 seconds in all."""
        return self.evaluate(template, scope, within_seconds=_SECONDS)

    def evaluate_quickly(self, template: Template, scope: Scope) -> Json:
        """The same, for an event loop: a fraction of a millisecond, or `NotQuick`."""
        if template.faults:
            raise Invalid("The expressions do not compile.", template.faults)
        return self._part(template.part, scope, _at_once)

    def _anywhere(self, program: Program, roots: Mapping[str, Any]) -> Json:
        return program.evaluate(roots, self._limits.max_expression_cost, self._sandbox)

    def _program(self, source: str) -> Program:
        with self._lock:
            program = self._programs.get(source)
            if program:
                self._programs.move_to_end(source)
                return program
        program = Program(source, self._environment)
        with self._lock:
            self._programs[source] = program
            if len(self._programs) > self._capacity:
                self._programs.popitem(last=False)
        return program

    def _part(self, part: Part, scope: Scope, run: _Run) -> Json:
        match part:
            case Slot():
                return self._slot(part, scope, run)
            case cel_template.Literal(value):
                return value
            case Text(parts):
                return "".join(
                    each if isinstance(each, str) else self._written(each, scope, run)
                    for each in parts
                )
            case Array(items):
                return [self._part(each, scope, run) for each in items]
            case Object(members):
                return self._object(members, scope, run)

    def _object(
        self, members: tuple[tuple[Part, Part], ...], scope: Scope, run: _Run
    ) -> JsonObject:
        result: JsonObject = {}
        for key_part, each in members:
            key = self._part(key_part, scope, run)
            if not isinstance(key, str) or key in result:
                what = "is there twice" if isinstance(key, str) else "is no string"
                source = key_part.program.source if isinstance(key_part, Slot) else str(key)
                raise ExpressionError(
                    f"{quoted(source)}: the key {orjson.dumps(key).decode()} {what}",
                    hint="The keys of an object are different strings; convert with string().",
                )
            result[key] = self._part(each, scope, run)
        return result

    def _written(self, slot: Slot, scope: Scope, run: _Run) -> str:
        value = self._slot(slot, scope, run)
        if isinstance(value, str):
            return value
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        except TypeError as error:
            raise _failure(slot, f"its value cannot be written as JSON ({error})", "") from None

    def _slot(self, slot: Slot, scope: Scope, run: _Run) -> Json:
        roots = _roots(slot.program, scope)
        try:
            return run(slot.program, roots)
        except EvaluationFault as fault:
            raise _explained(slot, fault.raw, roots) from None
        except ValueFault as fault:
            raise _failure(slot, fault.message, fault.hint) from None
        except CostFault as fault:
            raise _failure(slot, fault.message, fault.hint, ExpressionTooCostly) from None
        except SandboxLost as lost:
            raise _failure(slot, str(lost), "Run it again.") from None


def _at_once(program: Program, roots: Mapping[str, Any]) -> Json:
    return program.evaluate_quickly(roots, _QUICK_COST)


def _roots(program: Program, scope: Scope) -> dict[str, Any]:
    roots: dict[str, Any] = {"params": scope.params, "run": scope.run, "trigger": scope.trigger}
    if program.secrets:
        roots["secrets"] = scope.secrets
    if program.references:
        outputs: Mapping[Any, Any] = scope.nodes
        ended: Mapping[Any, Ended] = scope.without_output
        nodes: dict[str, Any] = {}
        for node in program.references:
            if node in outputs:
                nodes[node] = {"output": outputs[node], "status": "succeeded", "error": None}
            elif node in ended:
                nodes[node] = ended[node]
        roots["nodes"] = nodes
    return roots


def _explained(slot: Slot, raw: str, roots: Mapping[str, Any]) -> ExpressionError:
    if cel_messages.ITERATIONS in raw:
        return _failure(slot, "it iterates too often", _ITERATIONS_HINT, ExpressionTooCostly)
    absent = cel_messages.absent(raw, slot.program.inputs)
    message, hint = absent.explain(roots) if absent else cel_messages.explain(raw)
    return _failure(slot, message, hint)


def _failure(
    slot: Slot, message: str, hint: str, kind: type[ExpressionError] = ExpressionError
) -> ExpressionError:
    source = slot.program.source
    return kind(f"{quoted(source)}: {message}", hint=hint, expression=source, pointer=slot.pointer)
