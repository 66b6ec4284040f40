"""What the clients of Dagster Pipes read of Dagster's context, without one.

They want an ``OpExecutionContext``. A worker runs nodes without Dagster's step contexts, and one
that is built for the purpose (``build_op_context``) opens an instance of its own on disk, has no
run and logs elsewhere. So they get an object that has what they read and no more: what a later
Dagster reads besides fails by ``AttributeError``, and the tests of each platform with it
(docs/adr/0017).
"""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from dagster import OpExecutionContext
from dagster._core.pipes.client import PipesMessageReader
from dagster._core.pipes.context import PipesMessageHandler
from dagster._core.pipes.utils import PipesEnvContextInjector
from dagster_pipes import PipesContextData, PipesDefaultMessageWriter, PipesParams, encode_param
from pydantic import JsonValue

from dynamic_jobs.platforms.base import Step, StepNotStarted
from dynamic_jobs.platforms.reports import Reports

MAX_VARIABLE_BYTES: Final = 96 * 2**10
"""Linux starts no program with an argument or variable of 128 KiB or more."""

_log = logging.getLogger(__name__)


class _PipesLog:
    """What Pipes says of itself: of no use to the author of a graph."""

    def log(self, level: object, message: str, **_: object) -> None:
        _log.debug("%s", message)

    def info(self, message: str, **_: object) -> None:
        _log.debug("%s", message)

    warning = info


@dataclass(frozen=True, slots=True)
class _Op:
    name: str


class _Context:
    """See the module."""

    has_assets_def = False
    has_partition_key = False
    job_name = None

    def __init__(self, step: Step) -> None:
        self.run_id = step.context.run_id
        self.retry_number = step.context.attempt - 1
        self.op = _Op(step.context.node)
        self.log = _PipesLog()


def pipes_context(step: Step) -> OpExecutionContext:
    """The context of a step, for a client of Pipes."""
    return cast("OpExecutionContext", _Context(step))


def extras(step: Step, given: JsonValue) -> dict[str, Any]:
    """What the program finds by ``get_extra``: ``key`` makes doing its work again safe."""
    context = step.context
    return {
        "key": context.key,
        "node": context.node,
        "attempt": context.attempt,
        "tenant": context.tenant,
        "input": given,
    }


class BoundedEnvInjector(PipesEnvContextInjector):
    """The context, in a variable of the program's environment, if it fits into one."""

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Generator[PipesParams]:
        with super().inject_context(context_data) as params:
            size = len(encode_param(params))
            if size > MAX_VARIABLE_BYTES:
                raise StepNotStarted(
                    f"`input` takes {size:,} bytes, compressed, and the limit is "
                    f"{MAX_VARIABLE_BYTES:,}",
                    hint="Pass on where it is, instead of what it is.",
                )
            yield params


class Relay(PipesMessageReader):
    """Has the program write its messages to its stderr. Whoever follows it feeds the reports."""

    def __init__(self, reports: Reports, *, buffered: bool = False) -> None:
        """``buffered``: it writes them at its end, all together."""
        self._reports = reports
        writer = PipesDefaultMessageWriter
        self._how = writer.BUFFERED_STDIO_KEY if buffered else writer.STDIO_KEY

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Generator[PipesParams]:
        self._reports.attach(handler)
        yield {self._how: PipesDefaultMessageWriter.STDERR}

    @property
    def expected_writer_count(self) -> int:
        return 1  # as Dagster's own says, and warns that it is in preview

    def no_messages_debug_text(self) -> str:
        return "The program wrote no message to its stderr."
