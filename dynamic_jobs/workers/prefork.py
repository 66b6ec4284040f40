"""Copies of one process, kept alive: started, replaced when they end, stopped together.

The parent does nothing else. On Linux it forks its children, so that they share what it has
imported; elsewhere they start afresh, since forking is not safe on macOS. Who gets which signal is
in docs/adr/0007-worker-pool.md.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import ClassVar, Final, Literal, TypeAlias

from dynamic_jobs.workers.prefork_child import HURRY, ChildLink
from foundation.errors import GraphwrightError

_log = logging.getLogger(__name__)

StartMethod: TypeAlias = Literal["fork", "spawn"]
START_METHOD: Final[StartMethod] = "fork" if sys.platform == "linux" else "spawn"

_STOPS: Final = {signal.SIGTERM, signal.SIGINT}
_HANDLED: Final = {*_STOPS, HURRY, signal.SIGCHLD}
_HEALTHY_SECONDS: Final = 30.0
"""A child that lived that long is replaced at once when it breaks."""
_FIRST_DELAY_SECONDS: Final = 0.5
_MAX_DELAY_SECONDS: Final = 30.0


class ForkUnsafe(GraphwrightError):
    """The process has more than one thread: locks that another holds would be held for ever."""

    code: ClassVar[str] = "fork_unsafe"


@dataclass(slots=True, eq=False)
class _Child:
    process: BaseProcess
    notices: Connection | None
    """Tells once that the child leaves, or ends; None from then on."""
    leaves: bool = False
    began: float = field(default_factory=time.monotonic)


class Prefork:
    """Keeps ``size`` processes alive that each call ``main``; call :meth:`run` in the main thread.

    A child that breaks is replaced at once if it had lived for a while, else after a delay that
    grows. One that leaves is replaced while it still finishes what it does, unless ``size`` others
    do so too: that bounds what all of them use.
    """

    def __init__(
        self, main: Callable[[ChildLink], None], size: int, method: StartMethod = START_METHOD
    ) -> None:
        """``main`` must be picklable where the method is ``spawn``."""
        self._main = main
        self._size = size
        fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
        self._context = fork if method == "fork" else spawn
        self._children: list[_Child] = []
        self._stops = 0
        self._delay = 0.0
        self._not_before = 0.0

    def run(self) -> None:
        """Return when, after SIGTERM or SIGINT, all children have ended; a second one hurries them.

        Raises :class:`ForkUnsafe`.
        """
        signals, told = os.pipe()
        os.set_blocking(told, False)
        for number in (*_STOPS, signal.SIGCHLD):
            signal.signal(number, _ignore)  # the file descriptor tells
        signal.set_wakeup_fd(told)
        try:
            while not self._stops or self._children:
                self._fill()
                self._wait(signals)
                self._bury()
        finally:
            self._tell_children(signal.SIGTERM)  # there are none, unless something here broke
            signal.set_wakeup_fd(-1)
            os.close(signals)
            os.close(told)

    def _missing(self) -> int:
        if self._stops:
            return 0
        working = sum(not child.leaves for child in self._children)
        return min(self._size - working, 2 * self._size - len(self._children))

    def _fill(self) -> None:
        if time.monotonic() >= self._not_before:
            for _ in range(self._missing()):
                self._start()

    def _start(self) -> None:
        if self._context.get_start_method() == "fork":
            assert_single_thread()
        notices, told = self._context.Pipe(duplex=False)
        link = ChildLink(os.getpid(), told)
        process = self._context.Process(target=_begin, args=(self._main, link))
        # It must not take a signal before it knows what to do with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        told.close()
        self._children.append(_Child(process, notices))
        _log.info("worker process %s started", process.pid)

    def _wait(self, signals: int) -> None:
        """Block until a signal or a notice comes, or a child may be started again."""
        timeout = max(0.0, self._not_before - time.monotonic()) if self._missing() else None
        told = {child.notices: child for child in self._children if child.notices is not None}
        for ready in wait([signals, *told], timeout):
            if ready == signals:
                for number in os.read(signals, 4_096):
                    if number in _STOPS:
                        self._stop()
            elif isinstance(ready, Connection):
                child = told[ready]
                with suppress(EOFError):  # which is its end, seen a moment before SIGCHLD
                    ready.recv_bytes()
                    child.leaves = True
                ready.close()
                child.notices = None

    def _stop(self) -> None:
        self._stops += 1
        self._tell_children(signal.SIGTERM if self._stops == 1 else HURRY)

    def _tell_children(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.process.pid, number)

    def _bury(self) -> None:
        for child in list(self._children):
            code = child.process.exitcode
            if code is None:
                continue
            self._children.remove(child)
            if child.notices is not None:
                child.notices.close()
            if code == 0:
                _log.info("worker process %s has ended", child.process.pid)
            else:
                self._broken(child, code)
            child.process.close()

    def _broken(self, child: _Child, code: int) -> None:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        if self._stops:
            _log.warning("worker process %s ended %s", child.process.pid, how)
            return
        now = time.monotonic()
        if now - child.began >= _HEALTHY_SECONDS:
            self._delay = 0.0
        elif now >= self._not_before:  # else it is one more of those that the delay is for
            self._delay = min(max(2 * self._delay, _FIRST_DELAY_SECONDS), _MAX_DELAY_SECONDS)
        self._not_before = now + self._delay
        _log.error(
            "worker process %s ended %s; another starts in %g s",
            child.process.pid, how, self._delay,
        )  # fmt: skip


def assert_single_thread() -> None:
    """Raises :class:`ForkUnsafe`, which names the threads, where this process has several."""
    ours = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = [
        ours.get(int(task.name)) or (task / "comm").read_text().strip()
        for task in Path("/proc/self/task").iterdir()
    ]
    if len(names) > 1:
        raise ForkUnsafe(
            f"a process with {len(names)} threads cannot be forked: {', '.join(sorted(names))}",
            hint="Something that is imported starts a thread; import it where it is used.",
        )


def _ignore(_number: int, _frame: object) -> None:
    pass


def _begin(main: Callable[[ChildLink], None], link: ChildLink) -> None:
    link.attach()
    main(link)
