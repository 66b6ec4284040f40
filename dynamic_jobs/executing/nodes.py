"""Running one node, the same under every executor: expressions, ``with``, function, output."""

import asyncio
import logging
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from dynamic_jobs.compiling.prepared import PreparedNode
from dynamic_jobs.executing.process_pool import ProcessPool
from foundation.errors import GraphwrightError, Invalid
from graph_defs.cel.values import MAX_DEPTH
from graph_defs.expressions import Evaluator, NotQuick, Scope, Template
from graph_defs.suggestions import Suggester
from graph_defs.validation.translation import translate
from node_types.base import (
    InlineNodeType,
    LoopNodeType,
    NodeContext,
    NodeError,
    ProcessNodeType,
    ThreadNodeType,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")

_OUTPUTS: Final = "the outputs of the graph"

_ORJSON_DEPTH: Final = 254
"""Levels that orjson writes; a contract test holds it to that."""


class OutputTooLarge(NodeError):
    """A node produced more than the installation stores."""

    code: ClassVar[str] = "output_too_large"


class OutputTooDeep(NodeError):
    """A node produced JSON that is nested deeper than readers of JSON put up with."""

    code: ClassVar[str] = "output_too_deep"


class NodeCrashed(NodeError):
    """The node type itself broke; the log of the worker has the trace."""

    code: ClassVar[str] = "node_crashed"


class BadWith(Invalid):
    """After its expressions were evaluated, ``with`` is not what the node type takes."""

    code: ClassVar[str] = "invalid_with"


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """A node's output as a JSON value, as the JSON text that is stored, and that text's bytes."""

    value: Any
    text: str
    size: int


def may_pass(error: GraphwrightError) -> bool:
    """Whether another attempt may succeed: not where the graph or the node type is at fault."""
    return isinstance(error, NodeError) and not isinstance(error, OutputTooLarge | OutputTooDeep)


class NodeRunner:
    """Runs nodes for any number of runs.

    ``threads`` takes what blocks, nodes and expressions; ``processes`` what computes.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        threads: Executor,
        processes: ProcessPool,
        max_output_bytes: int,
    ) -> None:
        self._evaluator = evaluator
        self._threads = threads
        self._processes = processes
        self._max_output_bytes = max_output_bytes

    def run_now(self, node: PreparedNode, scope: Scope) -> NodeOutput | None:
        """Run a node that takes microseconds; None where it may take longer.

        Raises:
            GraphwrightError: whatever went wrong; nothing else comes out.
        """
        if not isinstance(node.type, InlineNodeType):
            return None
        try:
            with _boundary(node):
                given = self._fitted(node, self._evaluator.evaluate_quickly(node.given, scope))
                return self._stored(node, node.type.compute(given))
        except NotQuick:
            return None

    async def run(
        self, node: PreparedNode, scope: Scope, context: NodeContext, *, much: bool = False
    ) -> NodeOutput:
        """Run one attempt of a node, where its type says; off the event loop if it reads ``much``.

        Raises:
            GraphwrightError: whatever went wrong; nothing else but cancellation comes out.
        """
        with _boundary(node):
            if much:
                given = await self._in_thread(
                    lambda: self._fitted(node, self._evaluator.evaluate(node.given, scope))
                )
            else:
                given = self._fitted(node, await self._evaluate(node.given, scope))
            match node.type:
                case InlineNodeType():
                    compute = node.type.compute
                    return await self._in_thread(lambda: self._stored(node, compute(given)))
                case LoopNodeType():
                    output = await node.type.run(given, context)
                    return await self._in_thread(lambda: self._stored(node, output))
                case ThreadNodeType():
                    run_blocking = node.type.run_blocking
                    return await self._in_thread(
                        lambda: self._stored(node, run_blocking(given, context))
                    )
                case ProcessNodeType():
                    output = await self._processes.compute(node.type, given)
                    return await self._in_thread(lambda: self._stored(node, output))
                case _:
                    raise TypeError(f"{node.type.name} is of no kind that is known")

    def output_now(self, outputs: Template, scope: Scope) -> NodeOutput | None:
        """The graph's ``outputs``, or None where that may take longer than microseconds.

        Raises :class:`GraphwrightError`.
        """
        try:
            return self._checked(_OUTPUTS, self._evaluator.evaluate_quickly(outputs, scope))
        except NotQuick:
            return None

    async def evaluate_output(self, outputs: Template, scope: Scope) -> NodeOutput:
        """Evaluate the graph's ``outputs``. Raises :class:`GraphwrightError`."""
        return await self._in_thread(
            lambda: self._checked(_OUTPUTS, self._evaluator.evaluate(outputs, scope))
        )

    async def _evaluate(self, template: Template, scope: Scope) -> Any:
        """Quick expressions at once; others off the event loop, for they may take seconds."""
        try:
            return self._evaluator.evaluate_quickly(template, scope)
        except NotQuick:
            return await self._in_thread(lambda: self._evaluator.evaluate(template, scope))

    def _fitted(self, node: PreparedNode, value: Any) -> BaseModel:
        try:
            return node.type.With.model_validate_json(orjson.dumps(value))
        except ValidationError as error:
            faults = translate(error, node.type.With, value, ("with",), Suggester())
            told = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults)
            raise BadWith(f"`with` does not fit {node.type.name}: {told}", faults) from None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _stored(self, node: PreparedNode, output: BaseModel) -> NodeOutput:
        return self._checked(f"the output of {node.id}", output.model_dump(mode="json"))

    def _checked(self, what: str, value: Any) -> NodeOutput:
        text = orjson.dumps(value)
        if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deep(value):
            raise OutputTooDeep(
                f"{what} is nested deeper than {MAX_DEPTH} levels", hint="pass on a part of it"
            )
        if len(text) > self._max_output_bytes:
            raise OutputTooLarge(
                f"{what} has {len(text)} bytes, the limit is {self._max_output_bytes}",
                hint="keep less of it, or raise GRAPHWRIGHT_MAX_OUTPUT_BYTES",
            )
        return NodeOutput(value, text.decode(), len(text))


def _is_deep(value: Any) -> bool:
    """Whether it has more than ``MAX_DEPTH`` levels, by the limit that orjson has itself."""
    for _ in range(_ORJSON_DEPTH - MAX_DEPTH):
        value = [value]
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False


@contextmanager
def _boundary(node: PreparedNode) -> Generator[None]:
    """Tells faults of graphs and of the outside world from those of node types."""
    try:
        yield
    except (GraphwrightError, NotQuick):
        raise
    except Exception as error:
        _log.exception("node type %s broke", node.type.name)
        raise NodeCrashed(
            f"node type {node.type.name} broke: {type(error).__name__}",
            hint="a defect of the node type, not of the graph; the worker's log has more",
            node=node.id,
        ) from error
