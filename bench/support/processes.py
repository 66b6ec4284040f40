"""Child processes: each leads a group of its own, can be stopped for a while, and is always ended.

``graphwright.guard`` ends them when this process is killed outright; ``close`` does in every other
case.
"""

import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from graphwright.guard import Guard

_GRACE_SECONDS: Final = 60.0
_LOG_TAIL: Final = 1_500


class Child:
    """One process with everything below it, and its log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_tail(self) -> str:
        return self._log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace")

    def tree(self) -> list[psutil.Process]:
        """The process and all below it, as they are now."""
        try:
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    @contextmanager
    def stopped(self, spared: int = 0) -> Generator[None]:
        """Keep the whole tree from running, by SIGSTOP; but for the process ``spared``."""
        tree = [process for process in self.tree() if process.pid != spared]
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


class Processes:
    """The children of one benchmark run; close it to end them all."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._guard = Guard()
        self._children: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pipes: bool = False,
        how: signal.Signals = signal.SIGKILL,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start a process in a session of its own. Its output goes into a log, but for stdout with
        ``pipes``. ``how`` is the signal by which it is ended if we die.
        """
        path = self._logs / f"{name}-{len(self._children)}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=None if environment is None else dict(environment),
                cwd=cwd,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self._guard.watch(process.pid, how)
        child = Child(process, path)
        self._children.append(child)
        return child

    def end(self, child: Child, first: signal.Signals = signal.SIGTERM) -> None:
        """End a process and everything below it: in order, if it obeys within a minute."""
        tree = child.tree()
        if child.process.poll() is None:
            child.process.send_signal(first)
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(_GRACE_SECONDS)
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.process.wait()
        for pipe in (child.process.stdin, child.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._guard.forget(child.pid)
        self._children.remove(child)

    def close(self) -> None:
        """End what still runs, the last one first."""
        for child in reversed(self._children.copy()):
            self.end(child)
        self._guard.close()
