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
LEAVES: Final = b"leaves"
DRAIN: Final = b"drain"
ASIDE: Final = b"aside "
"""Before what a process is to do beside the ones that are kept, and before what one has done."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class ChildLink:
    """What connects a child with its parent. It is made in the parent."""

    parent: int
    notices: Connection
    """Both ways, but the parent only tells which processes aside have ended."""

    def attach(self) -> None:
        """Undo what the parent set up for itself. Called first, in the main thread."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the parent too
        end_with_parent()
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
        with suppress(OSError):  # the parent listens no more
            self.notices.send_bytes(LEAVES)

    def start_aside(self, work: bytes) -> None:
        """Ask the parent for a process that does this work, once, and whatever becomes of us."""
        with suppress(OSError):
            self.notices.send_bytes(ASIDE + work)

    def ended_aside(self) -> list[bytes]:
        """The work of those that have ended since this was last asked."""
        ended: list[bytes] = []
        with suppress(OSError, EOFError):
            while self.notices.poll():
                ended.append(self.notices.recv_bytes().removeprefix(ASIDE))
        return ended

    def drain(self) -> None:
        """Ask the parent to stop all its children gracefully, and itself."""
        with suppress(OSError):
            self.notices.send_bytes(DRAIN)


def end_with_parent() -> None:
    """Have this process get SIGTERM when its parent dies, where the system can do that."""
    if sys.platform == "linux":
        libc: Any = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


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
