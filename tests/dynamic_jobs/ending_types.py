"""Node types that tests hold, let go, cancel and kill. Processes of a pool can import this module.

Processes are held by FIFOs.
"""

import asyncio
import os
import signal
import threading
from pathlib import Path

from node_types.base import (
    Fields,
    LoopNodeType,
    NodeCancelled,
    NodeContext,
    NodeError,
    ProcessNodeType,
    ThreadNodeType,
)


class Given(Fields):
    gate: str = ""


class Done(Fields):
    told: str


class Held(ProcessNodeType[Given, Done]):
    """Writes its process id into ``<gate>.up``, then does what a line of ``<gate>.do`` tells it."""

    name = "tests.held"
    version = 1
    effects = "none"
    With = Given
    Output = Done

    def compute(self, given: Given) -> Done:
        Path(f"{given.gate}.up").write_text(str(os.getpid()))
        told = _line(given.gate)
        if told == "fork":  # a child that outlives it, and holds all that it had open
            if os.fork() == 0:
                _line(given.gate)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        if told == "refuse":
            raise NodeError("refused")
        if told == "break":
            raise Awkward("one", "two")
        if told == "leave":
            raise SystemExit(3)
        return Done(told=told)


def _line(gate: str) -> str:
    with Path(f"{gate}.do").open() as lines:
        return lines.readline().strip()


class Awkward(Exception):
    """Can be pickled, and then not be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Dies(Fields):
    pass


class Died(Fields):
    pass


class Dying(ProcessNodeType[Dies, Died]):
    """Ends its process. ``tests.dies`` is its name in documents."""

    def compute(self, given: Dies) -> Died:
        os.kill(os.getpid(), signal.SIGKILL)
        return Died()


class Listening(ThreadNodeType[Given, Done]):
    """Waits for nothing but its cancel."""

    name = "tests.listening"
    version = 1
    effects = "none"
    With = Given
    Output = Done

    def __init__(self) -> None:
        self.begun, self.heard = threading.Event(), threading.Event()

    def run_blocking(self, given: Given, context: NodeContext) -> Done:
        self.begun.set()
        context.cancelled.wait()
        self.heard.set()
        raise NodeCancelled("it was cancelled")


class Deaf(ThreadNodeType[Given, Done]):
    """Does not look whether it is cancelled."""

    name = "tests.deaf"
    version = 1
    effects = "none"
    With = Given
    Output = Done

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def run_blocking(self, given: Given, context: NodeContext) -> Done:
        self.begun.set()
        self.go.wait(30)
        return Done(told="late")


class Cleaning(LoopNodeType[Given, Done]):
    """Waits; when it is cancelled it cleans up, which takes until ``go``."""

    name = "tests.cleaning"
    version = 1
    effects = "none"
    With = Given
    Output = Done

    def __init__(self) -> None:
        self.begun, self.told, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.cleaned = False

    async def run(self, given: Given, context: NodeContext) -> Done:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.told.set()
            await self.go.wait()
            self.cleaned = True
            raise
        return Done(told="never")
