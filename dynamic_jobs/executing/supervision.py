"""Ending what a node does before it ends by itself: at its timeout, or because it is cancelled."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar, TypeVar

from node_types.base import NodeError

_log = logging.getLogger(__name__)

T = TypeVar("T")


class NodeTimeout(NodeError):
    """An attempt of a node took longer than its ``timeout``."""

    code: ClassVar[str] = "timeout"


class Clock:
    """How long one attempt may still take. It goes from the start, but not while one queues."""

    def __init__(self, timeout: timedelta | None) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._left = 0.0 if timeout is None else timeout.total_seconds()
        self._timer: asyncio.TimerHandle | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Is done once the time is over and the clock goes."""

    def stop(self) -> None:
        """Once only: what comes now may queue for a thread or a process."""
        self._left -= self._loop.time() - self._since

    def go_on(self) -> None:
        """It has what it queued for."""
        if self._timeout is not None and not self.over.done():
            self._timer = self._loop.call_later(self._left, self._ring)

    def end(self) -> None:
        """The attempt has ended, in time or not."""
        if self._timer is not None:
            self._timer.cancel()
        self.over.cancel()

    def _ring(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class Supervisor:
    """Waits for what nodes do, tells it to stop, and gives up on it after ``grace_seconds``.

    Nothing can end a coroutine or a thread that does not listen: it is abandoned. It goes on, its
    result is dropped, and the log says so, and when it has ended after all.
    """

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._abandoned = 0

    async def outcome(
        self, name: str, work: "asyncio.Future[T]", stop: Callable[[], object], clock: Clock
    ) -> T:
        """What ``work`` comes to. ``stop`` asks it to end, when its time is over or on cancel.

        Raises what it raises, ``CancelledError`` and :class:`NodeTimeout`, the latter two when it
        has ended, or after the grace.
        """
        try:
            await asyncio.wait({work, clock.over}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._stopped(name, work, stop)
            raise
        finally:
            clock.end()
        if not work.done():
            await self._stopped(name, work, stop)
            raise NodeTimeout(
                "the node took longer than its timeout",
                hint="Raise `timeout_seconds`, or give the node less to do.",
            )
        if work.cancelled():
            raise RuntimeError("it cancelled itself")  # a cancel of the run it is not
        return work.result()

    async def _stopped(
        self, name: str, work: "asyncio.Future[T]", stop: Callable[[], object]
    ) -> None:
        stop()
        try:
            await asyncio.wait({work}, timeout=self._grace_seconds)
        finally:
            if not work.done():
                self._abandon(name, work)
            elif not work.cancelled():
                work.exception()  # dropped, as its result would be

    def _abandon(self, name: str, work: "asyncio.Future[T]") -> None:
        since = time.monotonic()
        self._abandoned += 1
        _log.warning(
            "%s was told to end and did not: it is abandoned (%d such in this process), and holds "
            "what it has until it ends, a thread of the worker's for example",
            name,
            self._abandoned,
        )

        def ended(work: "asyncio.Future[T]") -> None:
            self._abandoned -= 1
            if not work.cancelled():
                work.exception()
            _log.warning(
                "%s has ended, %.1f s after it was abandoned", name, time.monotonic() - since
            )

        work.add_done_callback(ended)
