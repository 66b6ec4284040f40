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
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import ClassVar, Final, Literal, TypeAlias

from dynamic_jobs.workers.prefork_child import ASIDE, DRAIN, HURRY, LEAVES, ChildLink
from foundation.errors import GraphwrightError

_log = logging.getLogger(__name__)

StartMethod: TypeAlias = Literal["fork", "spawn"]
START_METHOD: Final[StartMethod] = "fork" if sys.platform == "linux" else "spawn"

_STOPS: Final = {signal.SIGTERM, signal.SIGINT}
_HANDLED: Final = {*_STOPS, HURRY, signal.SIGCHLD}
_HEALTHY_SECONDS: Final = 30.0
"""A child that lived that long is replaced at once when it breaks."""
_FIRST_DELAY_SECONDS: Final = 0.5
_MAX_DELAY_SECONDS: Final = 5.0


class ForkUnsafe(GraphwrightError):
    """The process has more than one thread: locks that another holds would be held for ever."""

    code: ClassVar[str] = "fork_unsafe"


@dataclass(slots=True, eq=False)
class _Child:
    process: BaseProcess
    notices: Connection | None
    """None once the child listens no more."""
    leaves: bool = False
    began: float = field(default_factory=time.monotonic)
    work: bytes = b""
    """What it does aside, then ending; nothing for one of those that are kept."""
    asker: "_Child | None" = None
    """Who asked for what it does aside."""


class Prefork:
    """Keeps ``size`` processes alive that each call ``main``; call :meth:`run` in the main thread.

    A child that breaks is replaced at once if it had lived for a while, else after a delay that
    grows. One that leaves is replaced while it still finishes what it does, unless ``size`` others
    do so too: that bounds what all of them use. Beside them there are processes aside, which a
    child has asked for and nobody replaces. One that is asked for while all are being stopped is
    started and told to stop at once, so that it can say that its work is not done.
    """

    def __init__(
        self,
        main: Callable[[ChildLink], None],
        size: int,
        method: StartMethod = START_METHOD,
        aside: Callable[[bytes, ChildLink], None] | None = None,
    ) -> None:
        """``aside`` does the work that a child asks for in a process of its own. Both must be
        picklable where the method is ``spawn``."""
        self._main = main
        self._aside = aside
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
        kept = [child for child in self._children if not child.work]
        working = sum(not child.leaves for child in kept)
        return min(self._size - working, 2 * self._size - len(kept))

    def _fill(self) -> None:
        now = time.monotonic()
        if now < self._not_before:
            return
        try:
            for _ in range(self._missing()):
                self._start(self._main)
        except OSError as error:  # no more processes, or no memory: there may be some again
            self._put_off(now)
            _log.error(
                "no worker process can be started: %s; tried again in %g s", error, self._delay
            )

    def _start(
        self,
        main: Callable[[ChildLink], None],
        work: bytes = b"",
        asker: _Child | None = None,
    ) -> _Child:
        forks = self._context.get_start_method() == "fork"
        if forks:
            assert_single_thread()
        notices, told = self._context.Pipe()
        before = _descriptors() if forks else set[int]()
        link = ChildLink(os.getpid(), told)
        process = self._context.Process(target=_begin, args=(main, link))
        # It must not take a signal before it knows what to do with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            process.start()
        except OSError:
            notices.close()
            if forks:
                for pipe in _descriptors() - before:  # which multiprocessing leaves open
                    os.close(pipe)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            told.close()
        child = _Child(process, notices, work=work, asker=asker)
        self._children.append(child)
        _log.info("worker process %s started", process.pid)
        return child

    def _start_aside(
        self, aside: Callable[[bytes, ChildLink], None], work: bytes, asker: _Child
    ) -> None:
        try:
            child = self._start(partial(aside, work), work, asker)
        except OSError as error:  # no more processes, or no memory: the others go on
            _log.error("no process can be started aside: %s", error)
            _tell_ended(asker, work)
            return
        if self._stops:  # nobody else knows that it is not done: it hands its work back
            _tell(child, signal.SIGTERM)

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
                self._heed(told[ready], ready)

    def _heed(self, child: _Child, notices: Connection) -> None:
        try:
            told = notices.recv_bytes()
        except (EOFError, OSError):  # its end, seen a moment before SIGCHLD
            notices.close()
            child.notices = None
            return
        if told == LEAVES:
            child.leaves = True
        elif told == DRAIN:
            if not self._stops:  # several of them may say so
                self._stop()
        elif self._aside is not None:
            self._start_aside(self._aside, told.removeprefix(ASIDE), child)

    def _stop(self) -> None:
        self._stops += 1
        self._tell_children(signal.SIGTERM if self._stops == 1 else HURRY)

    def _tell_children(self, number: signal.Signals) -> None:
        for child in self._children:
            _tell(child, number)

    def _bury(self) -> None:
        for child in list(self._children):
            code = child.process.exitcode
            if code is None:
                continue
            self._children.remove(child)
            while (notices := child.notices) is not None:
                if notices.poll():  # what it has told last
                    self._heed(child, notices)
                else:
                    notices.close()
                    child.notices = None
            if child.work:
                self._ended_aside(child, code)
            elif code == 0:
                _log.info("worker process %s has ended", child.process.pid)
            else:
                self._broken(child, code)
            child.process.close()

    def _ended_aside(self, child: _Child, code: int) -> None:
        level = logging.WARNING if code else logging.INFO
        _log.log(level, "process %s, aside, ended %s", child.process.pid, _how(code))
        if child.asker is not None:
            _tell_ended(child.asker, child.work)

    def _broken(self, child: _Child, code: int) -> None:
        how = _how(code)
        if self._stops:
            _log.warning("worker process %s ended %s", child.process.pid, how)
            return
        now = time.monotonic()
        if now - child.began >= _HEALTHY_SECONDS:
            self._delay, self._not_before = 0.0, now
        else:
            self._put_off(now)
        _log.error(
            "worker process %s ended %s; another starts in %g s",
            child.process.pid, how, self._delay,
        )  # fmt: skip

    def _put_off(self, now: float) -> None:
        """Start none for a while, that is longer each time."""
        if now >= self._not_before:  # else it is one more of those that the delay is for
            self._delay = min(max(2 * self._delay, _FIRST_DELAY_SECONDS), _MAX_DELAY_SECONDS)
        self._not_before = now + self._delay


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


def _descriptors() -> set[int]:
    """Those that are open: not the one by which they are listed."""
    return {int(each.name) for each in Path("/dev/fd").iterdir() if each.is_symlink()}


def _tell(child: _Child, number: signal.Signals) -> None:
    if child.process.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(child.process.pid, number)


def _tell_ended(asker: _Child, work: bytes) -> None:
    if asker.notices is not None:
        with suppress(OSError):
            asker.notices.send_bytes(ASIDE + work)


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"


def _ignore(_number: int, _frame: object) -> None:
    pass


def _begin(main: Callable[[ChildLink], None], link: ChildLink) -> None:
    link.attach()
    main(link)
