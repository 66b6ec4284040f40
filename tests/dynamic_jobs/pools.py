"""A pool of processes that a test started, and what it logs."""

import os
import re
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from subprocess import PIPE
from typing import IO

import psutil

from tests.forking import Forked


@dataclass
class Pool:
    """A parent and its children; what they log can be awaited."""

    process: Forked
    log: IO[str]
    lines: list[str] = field(default_factory=list[str])

    def until(self, pattern: str, times: int = 1) -> list[str]:
        """The text that ``pattern`` matched in each of the next lines that it is found in."""
        found: list[str] = []
        while len(found) < times:
            line = self.log.readline()
            assert line, "the pool has ended:\n" + "".join(self.lines)
            self.lines.append(line)
            found += [match[0] for match in re.finditer(pattern, line)]
        return found

    @property
    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # one that was killed may not be buried yet
                if "resource_tracker" not in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def ended(self) -> int:
        self.lines += self.log.readlines()
        return self.process.wait()


@contextmanager
def pool(*arguments: str, **environment: str) -> Generator[Pool]:
    """A pool in a process group of its own; nothing of it is left at the end."""
    process = Forked(arguments, {**os.environ, **environment}, stderr=PIPE)
    assert process.stderr is not None
    with process:
        try:
            yield Pool(process, process.stderr)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
