"""Running one node, the same under every executor: expressions, ``with``, function, output."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from dynamic_jobs.compiling.prepared import PreparedNode
from dynamic_jobs.executing.node_secrets import NodeSecrets
from dynamic_jobs.executing.process_pool import ProcessPool
from dynamic_jobs.executing.redaction import Redactor
from dynamic_jobs.executing.supervision import Clock, Supervisor
from dynamic_jobs.platforms.base import Ending
from dynamic_jobs.platforms.running import Platforms
from foundation.errors import GraphwrightError, Invalid
from foundation.ids import TenantId
from graph_defs.cel.values import MAX_DEPTH
from graph_defs.expressions import Evaluator, NotQuick, Scope, Template
from graph_defs.suggestions import Suggester
from graph_defs.validation.translation import translate
from node_types.base import (
    InlineNodeType,
    LoopNodeType,
    NodeContext,
    NodeError,
    OutputTooLarge,
    PlatformNodeType,
    ProcessNodeType,
    ThreadNodeType,
)

_log = logging.getLogger(__name__)

T = TypeVar("T")

_OUTPUTS: Final = "the outputs of the graph"

_ORJSON_DEPTH: Final = 254
"""Levels that orjson writes; a contract test holds it to that."""


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

    ``threads`` takes what blocks, nodes and expressions; ``processes`` what computes; ``platforms``
    what runs elsewhere. A node that is cancelled, or out of time, has ``cancel_grace_seconds`` to
    end by itself. What comes out of a node that reads ``secrets`` is without their values: output,
    error, and its lines in logs.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        secrets: NodeSecrets,
        threads: Executor,
        processes: ProcessPool,
        platforms: Platforms,
        max_output_bytes: int,
        cancel_grace_seconds: float,
    ) -> None:
        self._evaluator = evaluator
        self._secrets = secrets
        self._threads = threads
        self._processes = processes
        self._platforms = platforms
        self._max_output_bytes = max_output_bytes
        self._supervisor = Supervisor(cancel_grace_seconds)

    def run_now(self, node: PreparedNode, scope: Scope) -> NodeOutput | None:
        """Run a node that takes microseconds; None where it may take longer.

        Raises:
            GraphwrightError: whatever went wrong; nothing else comes out.
        """
        if not isinstance(node.type, InlineNodeType) or node.given.secrets:
            return None
        try:
            with _boundary(node):
                given = self._fitted(node, self._evaluator.evaluate_quickly(node.given, scope))
                return self._stored(node, node.type.compute(given), None)
        except NotQuick:
            return None

    async def run(
        self, node: PreparedNode, scope: Scope, context: NodeContext, *, much: bool = False
    ) -> NodeOutput:
        """Run one attempt of a node, where its type says; off the event loop if it reads ``much``.

        Its ``timeout`` counts from here, expressions included, but not while it queues for a thread
        or process, or its secrets are read. On cancel a node that runs is told so, and has the
        grace to end.

        Raises:
            GraphwrightError: whatever went wrong; nothing else but cancellation comes out.
        """
        if not node.given.secrets:
            return await self._attempt(node, scope, context, None, much=much)
        found = await self._secrets.reveal(TenantId(context.tenant), node.given.secrets)
        scope, redactor = replace(scope, secrets=found.values), found.redactor
        try:
            told = redactor.context(context)
            return await self._attempt(node, scope, told, redactor, much=much)
        except GraphwrightError as error:
            redactor.error(error)
            raise error.with_traceback(None) from None

    async def _attempt(
        self,
        node: PreparedNode,
        scope: Scope,
        context: NodeContext,
        redactor: Redactor | None,
        *,
        much: bool,
    ) -> NodeOutput:
        clock = Clock(node.timeout)
        with _boundary(node):
            if much:
                given = await self._in_thread(
                    lambda: self._fitted(node, self._evaluator.evaluate(node.given, scope))
                )
            else:
                given = self._fitted(node, await self._evaluate(node.given, scope))
            clock.stop()
            match node.type:
                case InlineNodeType():
                    compute = node.type.compute
                    return await self._in_thread(
                        lambda: self._stored(node, compute(given), redactor)
                    )
                case LoopNodeType():
                    clock.go_on()
                    work = node.type.run(given, context)
                    return await self._awaited(node, work, context, clock, redactor)
                case ThreadNodeType():
                    cancelled = threading.Event()
                    blocking = partial(
                        node.type.run_blocking, given, replace(context, cancelled=cancelled)
                    )
                    return await self._blocking(
                        node, blocking, self._threads, context, cancelled, clock, redactor
                    )
                case PlatformNodeType():
                    ending, threads = Ending(), self._platforms.threads
                    told = replace(context, cancelled=ending)
                    step = partial(self._platforms.run, node.type, given, told, ending)
                    return await self._blocking(
                        node, step, threads, context, ending, clock, redactor
                    )
                case ProcessNodeType():
                    work = self._processes.compute(node.type, given, clock.go_on)
                    return await self._awaited(node, work, context, clock, redactor)
                case _:
                    raise TypeError(f"{node.type.name} is of no kind that is known")

    async def _awaited(
        self,
        node: PreparedNode,
        work: Coroutine[Any, Any, BaseModel],
        context: NodeContext,
        clock: Clock,
        redactor: Redactor | None,
    ) -> NodeOutput:
        task = asyncio.create_task(work)
        output = await self._supervisor.outcome(_told(node, context), task, task.cancel, clock)
        return await self._in_thread(lambda: self._stored(node, output, redactor))

    async def _blocking(
        self,
        node: PreparedNode,
        work: Callable[[], BaseModel],
        threads: Executor,
        context: NodeContext,
        cancelled: threading.Event,
        clock: Clock,
        redactor: Redactor | None,
    ) -> NodeOutput:
        loop = asyncio.get_running_loop()

        def run() -> NodeOutput:
            if node.timeout is not None:
                loop.call_soon_threadsafe(clock.go_on)
            return self._stored(node, work(), redactor)

        queued = threads.submit(run)

        def stop() -> None:
            cancelled.set()
            queued.cancel()  # if no thread has taken it yet

        future = asyncio.wrap_future(queued)
        return await self._supervisor.outcome(_told(node, context), future, stop, clock)

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

    def _stored(
        self, node: PreparedNode, output: BaseModel, redactor: Redactor | None
    ) -> NodeOutput:
        stored = self._checked(f"the output of {node.id}", output.model_dump(mode="json"))
        if redactor is None or not redactor.finds(stored.text.encode()):
            return stored
        value = redactor.value(stored.value)
        text = orjson.dumps(value)
        return NodeOutput(value, text.decode(), len(text))

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


def _told(node: PreparedNode, context: NodeContext) -> str:
    return f"node {node.id} of run {context.run_id}"


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
