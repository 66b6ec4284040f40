"""The child's side of prefork: what it is told, and what it tells its parent."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Final

HURRY: Final = signal.SIGUSR1
"""Do not wait for what runs. Not a second SIGTERM: that one comes twice when somebody sends it to
the whole process group, since the parent passes it on."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class ChildLink:
    """What connects a child with its parent. It is made in the parent."""

    parent: int
    notices: Connection

    def attach(self) -> None:
        """Undo what the parent set up for itself. Called first, in the main thread."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the parent too
        if sys.platform == "linux":
            libc: Any = ctypes.CDLL(None)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self.parent:  # it died before that
            os.kill(os.getpid(), signal.SIGTERM)

    def follow(self, stop: Callable[[], None], hurry: Callable[[], None], grace: float) -> None:
        """From now on take signals, in the main thread.

        ``stop`` is called on SIGTERM and when the parent has died, then ``hurry`` on HURRY or after
        ``grace`` seconds; both in a thread of their own, so they may take any lock.
        """
        signals, told = os.pipe()  # open until this process ends
        os.set_blocking(told, False)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, HURRY):
            signal.signal(number, lambda _number, _frame: None)  # the pipe tells
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*signal.Signals})
        following = (signals, stop, hurry, grace)
        threading.Thread(target=_follow, args=following, name="signals", daemon=True).start()

    def leave(self) -> None:
        """Tell the parent that this process takes no more work: another may start now."""
        with suppress(BrokenPipeError):
            self.notices.send_bytes(b"leaves")


def _follow(
    signals: int, stop: Callable[[], None], hurry: Callable[[], None], grace: float
) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Where PR_SET_PDEATHSIG is missing the sentinel tells. A forked child's may tell late: younger
    # siblings have inherited the other end.
    wait([signals, parent.sentinel])
    got = _read(signals, 0.0)
    stop()
    deadline = time.monotonic() + grace
    while HURRY not in got and (left := deadline - time.monotonic()) > 0:
        got = _read(signals, left)
    hurry()


def _read(signals: int, seconds: float) -> bytes:
    """The numbers of the signals that have come; waits for one, but not longer than that."""
    return os.read(signals, 64) if wait([signals], seconds) else b""
