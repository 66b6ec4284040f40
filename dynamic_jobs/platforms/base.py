"""What a platform is that steps can run on, and how it is told to end one."""

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from pydantic import JsonValue

from foundation.errors import GraphwrightError
from graph_defs.step_policy import StepPolicy
from node_types.base import NodeContext, NodeError

_log = logging.getLogger(__name__)

_BESIDE_SECONDS: Final = 2.0

MAX_STEP_SECONDS = 86_400
"""What has run for a day is ended by its platform, whatever became of its worker."""

RUN = "graphwright.dev/run"
NODE = "graphwright.dev/node"
"""Labels that only what steps have started has both."""


class StepFailed(NodeError):
    """The step ran, and ended with an error."""

    code: ClassVar[str] = "step_failed"


class StepNotStarted(NodeError):
    """The platform would not start the step: its image cannot be had, for example."""

    code: ClassVar[str] = "step_not_started"


class PlatformAway(NodeError):
    """The platform cannot be reached, or does not take steps now."""

    code: ClassVar[str] = "platform_unavailable"


class StepNotAllowed(GraphwrightError):
    """The operator does not allow this to the tenant. Trying again does not help."""

    code: ClassVar[str] = "step_not_allowed"
    status: ClassVar[int] = 422


class Ending(threading.Event):
    """Set when a step is to end. It tells whoever can end it, each in a thread of its own.

    The node's ``cancelled``; :meth:`set` never blocks, since the event loop calls it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stops: dict[threading.Thread, bool] = {}
        self._lock = threading.Lock()

    def set(self) -> None:
        with self._lock:
            super().set()
            for thread, started in self._stops.items():
                if not started:
                    self._stops[thread] = True
                    thread.start()

    @contextmanager
    def stopping(self, stop: Callable[[], object]) -> Generator[None]:
        """Call ``stop`` when the step is to end while the block runs; at once, if it is already.

        The block does not end before ``stop`` has returned, where it was called.
        """
        thread = threading.Thread(target=_stop, args=(stop,), name="ending-step", daemon=True)
        with self._lock:
            self._stops[thread] = self.is_set()
            if self.is_set():
                thread.start()
        try:
            yield
        finally:
            with self._lock:
                started = self._stops.pop(thread)
            if started:
                thread.join()


def _stop(stop: Callable[[], object]) -> None:
    try:
        stop()
    except Exception:  # it may have ended by itself meanwhile
        _log.info("a step that was to be ended was not there, or would not end", exc_info=True)


def beside(remove: Callable[[], object], what: str) -> None:
    """Have what a step has left removed, in a thread of its own, and wait a moment for that.

    The end of a step does not hang on it: what cannot be removed is left to the next attempt of the
    node, or to whoever looks for leftovers. ``remove`` has to know it by a name that no other
    attempt's has, for it may take so long that there is another.
    """

    def work() -> None:
        try:
            remove()
        except Exception:  # of any platform
            _log.warning("%s may be left behind", what, exc_info=True)

    thread = threading.Thread(target=work, name="removing-step", daemon=True)
    thread.start()
    thread.join(_BESIDE_SECONDS)


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What one step may cost the worker."""

    log_lines: int
    """Lines that become events; the rest is dropped, and the last event says so."""
    start_seconds: float
    """How long the platform has to start it."""
    grace_seconds: float
    """How long the step has to end when it is told to."""
    aws_worker_credentials: bool
    """Whether the worker's own AWS credentials may assume the roles that the tenant may use."""


@dataclass(frozen=True, slots=True)
class Step:
    """One attempt of a node whose work is done elsewhere."""

    context: NodeContext
    ending: Ending
    """The same as ``context.cancelled``."""
    policy: StepPolicy
    """What the tenant may use."""
    limits: StepLimits

    @property
    def labels(self) -> dict[str, str]:
        """What tells apart what the step has started from everything else there is."""
        return {
            RUN: self.context.run_id,
            NODE: label(self.context.node),
            "graphwright.dev/tenant": label(self.context.tenant),
        }


def label(text: str) -> str:
    """The text as the value of a label; one that Kubernetes would not take is hashed."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", text):
        return text
    return f"x-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


class StepPlatform(Protocol):
    """Runs steps. Threads share it."""

    def run(self, given: Any, step: Step) -> JsonValue:
        """Run a step to its end and say what it reported. ``given``: the node type's ``with``.

        What an earlier attempt of the node has left running is ended first. When ``step.ending`` is
        set the step is ended, and whatever is raised then is taken for that.

        Raises:
            GraphwrightError: it failed, was not started, or is not allowed.
        """
        ...
