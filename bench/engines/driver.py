"""An engine that is used from inside a process of its own environment, such as a library.

The process is one of ``programs/``: it reads a question a line from stdin and answers on stdout,
both JSON (``programs/answering.py``). Times are taken there, beside the engine's client.
"""

import json
import select
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.engines.base import PAUSE_SECONDS
from bench.engines.peers import PROGRAMS
from bench.support.graphs import Work
from bench.support.processes import Child, Processes

_PATIENCE_SECONDS: Final = 300.0


class Driver:
    """The driving process, and the ``others`` that belong to the engine."""

    slow = False

    def __init__(self, name: str, how: str, child: Child, others: Sequence[Child] = ()) -> None:
        self.name = self.program = name
        self.how = how
        self._child = child
        self._others = others
        self._ask({"ask": "ready"})

    def one_by_one(self, work: Work, count: int, seconds: float) -> list[float]:
        asked = {"count": count, "seconds": seconds, "pause": PAUSE_SECONDS}
        return self._ask({"ask": "one_by_one", "work": asdict(work), **asked})

    def at_once(self, work: Work, count: int) -> float:
        return self._ask({"ask": "at_once", "work": asdict(work), "count": count})

    def stopped(self) -> AbstractContextManager[None]:
        return stopped(self._child, *self._others)

    def _ask(self, question: Mapping[str, Any]) -> Any:
        answer = json.loads(ask_line(self._child, json.dumps(question)))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["answer"]


def ask_line(child: Child, question: str) -> bytes:
    """One line to a process, and the line that it answers with. Raises RuntimeError for none."""
    process = child.process
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question.encode() + b"\n")
    process.stdin.flush()
    readable, _, _ = select.select([process.stdout], [], [], _PATIENCE_SECONDS)
    line = process.stdout.readline() if readable else b""
    if not line:
        raise RuntimeError(f"no answer: {child.log_tail()}")
    return line


def drive(processes: Processes, name: str, python: Path, environment: Mapping[str, str]) -> Child:
    """Start ``programs/<name>_driver.py``."""
    command = (python, PROGRAMS / f"{name}_driver.py")
    return processes.start(name, command, environment=environment, pipes=True)


def stopped(*children: Child) -> AbstractContextManager[None]:
    """Keep several processes from running."""

    @contextmanager
    def all_of_them() -> Any:
        with ExitStack() as stack:
            for child in children:
                stack.enter_context(child.stopped())
            yield

    return all_of_them()
