"""Running one node, the same under every executor: expressions, ``with``, function, output."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, ValidationError

from dynamic_jobs.prepared import PreparedNode
from foundation.errors import GraphwrightError, Invalid
from graph_defs.expressions import Evaluator, Scope, Template
from graph_defs.suggestions import Suggester
from graph_defs.validation.translation import translate
from node_types.base import LoopNodeType, NodeContext, NodeError, ThreadNodeType

_log = logging.getLogger(__name__)


class OutputTooLarge(NodeError):
    """A node produced more than the installation stores."""

    code: ClassVar[str] = "output_too_large"


class NodeCrashed(NodeError):
    """The node type itself broke; the log of the worker has the trace."""

    code: ClassVar[str] = "node_crashed"


class BadWith(Invalid):
    """After its expressions were evaluated, ``with`` is not what the node type takes."""

    code: ClassVar[str] = "invalid_with"


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """A node's output as a JSON value, and as the JSON text that is stored."""

    value: Any
    text: str


class NodeRunner:
    """Runs nodes for any number of runs. ``threads`` takes what blocks: nodes and expressions."""

    def __init__(self, evaluator: Evaluator, threads: Executor, max_output_bytes: int) -> None:
        self._evaluator = evaluator
        self._threads = threads
        self._max_output_bytes = max_output_bytes

    async def run(self, node: PreparedNode, scope: Scope, context: NodeContext) -> NodeOutput:
        """Run one attempt of a node.

        Raises:
            GraphwrightError: whatever went wrong; nothing else but cancellation comes out.
        """
        try:
            given = await self._given(node, scope)
            output = await self._call(node, given, context)
            return self._checked(f"the output of {node.id}", output.model_dump(mode="json"))
        except GraphwrightError:
            raise
        except Exception as error:
            _log.exception("node type %s broke in run %s", node.type.name, context.run_id)
            raise NodeCrashed(
                f"node type {node.type.name} broke: {type(error).__name__}",
                hint="a defect of the node type, not of the graph; the worker's log has more",
                node=node.id,
            ) from error

    async def evaluate_output(self, outputs: Template, scope: Scope) -> NodeOutput:
        """Evaluate the graph's ``outputs``. Raises :class:`GraphwrightError`."""
        return self._checked("the outputs of the graph", await self._evaluate(outputs, scope))

    async def _evaluate(self, template: Template, scope: Scope) -> Any:
        """Expressions are evaluated off the event loop, since a costly one may take seconds."""
        if template.is_literal:
            return self._evaluator.evaluate(template, scope)
        return await self._in_thread(lambda: self._evaluator.evaluate(template, scope))

    async def _given(self, node: PreparedNode, scope: Scope) -> BaseModel:
        value = await self._evaluate(node.given, scope)
        try:
            return node.type.With.model_validate_json(orjson.dumps(value))
        except ValidationError as error:
            faults = translate(error, node.type.With, value, ("with",), Suggester())
            told = "; ".join(f"{fault.pointer}: {fault.message}" for fault in faults)
            raise BadWith(f"`with` does not fit {node.type.name}: {told}", faults) from None

    async def _call(self, node: PreparedNode, given: BaseModel, context: NodeContext) -> BaseModel:
        match node.type:
            case LoopNodeType():
                return await node.type.run(given, context)
            case ThreadNodeType():
                run_blocking = node.type.run_blocking
                return await self._in_thread(lambda: run_blocking(given, context))
            case _:
                raise TypeError(f"{node.type.name} is neither a loop nor a thread node type")

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _checked(self, what: str, value: Any) -> NodeOutput:
        text = orjson.dumps(value)
        if len(text) > self._max_output_bytes:
            raise OutputTooLarge(
                f"{what} has {len(text)} bytes, the limit is {self._max_output_bytes}",
                hint="keep less of it, or raise GRAPHWRIGHT_MAX_OUTPUT_BYTES",
            )
        return NodeOutput(value, text.decode())
