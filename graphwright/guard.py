"""The guard: ends the processes of a stack when its supervisor dies first, even by kill -9.

It is a process of its own that reads a pipe whose only writer is the supervisor. The end of that
pipe is the end of the supervisor, on every Unix and however it came; Linux's PR_SET_PDEATHSIG would
reach only direct children, and fires when the *thread* that started them ends. Run as a script, it
imports the standard library alone.

The pipe carries one line a change: ``+<pid> <signal>`` to watch a process, ``-<pid>`` to forget it.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05


class Guard:
    """The supervisor's side. Watched processes must lead process groups of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, bufsize=0,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End ``pid`` with the signal ``how`` if we die; 10 s later its group is killed."""
        self._tell(f"+{pid} {int(how)}\n")

    def forget(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """Let the guard go; forget everything first."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # A guard that was itself killed must not take the stack down with it.
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())


def _main() -> None:
    watched: dict[int, int] = {}
    for line in sys.stdin:
        if line.startswith("+"):
            pid, how = line[1:].split()
            watched[int(pid)] = int(how)
        else:
            watched.pop(int(line[1:]), None)
    _end(watched)


def _end(watched: dict[int, int]) -> None:
    for pid, how in watched.items():
        with suppress(ProcessLookupError):
            if how == signal.SIGKILL:
                os.killpg(pid, how)
            else:
                os.kill(pid, how)
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(map(_alive, watched)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for pid in filter(_alive, watched):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _main()
