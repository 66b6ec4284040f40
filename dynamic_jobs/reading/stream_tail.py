"""The tail of one run's events, for all inboxes of those who follow it. No I/O of its own."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import orjson

from dynamic_jobs.reading.event_log import EventPage
from dynamic_jobs.reading.events import TERMINAL, RunEvent
from dynamic_jobs.reading.stream_inbox import Batch, Inbox
from foundation.errors import Unavailable
from foundation.ids import RunId, TenantId

_log = logging.getLogger(__name__)

Read: TypeAlias = Callable[[TenantId, RunId, int], Awaitable[EventPage]]

_MAX_SIGNALS: Final = 256


class RunTail:
    """Turns what is heard of one run into its events, in order, each once, for all inboxes."""

    def __init__(self, tenant: TenantId, run_id: RunId, position: int, read: Read) -> None:
        """``position`` is the id after which to start; ``read`` gives the page after an id."""
        self.tenant = tenant
        self.run_id = run_id
        self.position = position
        self.heard_at = time.monotonic()
        self.watched = asyncio.Event()
        """Set once it makes no difference any more whether an event is published or read."""
        self._read = read
        self._inboxes: set[Inbox[RunEvent]] = set()
        self._signals = asyncio.Queue[str | None](_MAX_SIGNALS)

    @contextmanager
    def filling(self, inbox: Inbox[RunEvent]) -> Generator[None]:
        """The inbox gets every event above ``position`` from now on."""
        self._inboxes.add(inbox)
        try:
            yield
        finally:
            self._inboxes.discard(inbox)
            if not self._inboxes:
                self.check()

    def hear(self, message: str) -> None:
        """Take a message of the run's channel."""
        self._signal(message)

    def check(self) -> None:
        """Look into PostgreSQL: there may be news, or nobody may follow any more."""
        self._signal(None)

    def end(self, error: Exception | None = None) -> None:
        """End all inboxes."""
        self.watched.set()
        for inbox in self._inboxes:
            inbox.end(error)

    async def run(self) -> None:
        """Go on until the run has ended or nobody follows it.

        Raises :class:`NotFound` when the run is deleted meanwhile.
        """
        while True:
            signal = await self._signals.get()
            if not self._inboxes:
                return
            try:
                ended = await self._advance(signal)
            except Unavailable as error:
                _log.warning("cannot read the events of a run, will try again: %s", error)
                continue
            if ended:
                self.end()
                return
            # Signals may be waiting in a row. Let those who follow take their events in between,
            # or even the quickest of them would overflow.
            await asyncio.sleep(0)

    def _signal(self, signal: str | None) -> None:
        self.heard_at = time.monotonic()
        # A full queue means that PostgreSQL is slow. What is dropped here leaves a gap before the
        # next message, or a silence, and either is mended.
        if not self._signals.full():
            self._signals.put_nowait(signal)

    async def _advance(self, signal: str | None) -> bool:
        if signal is not None and (message := _parse(signal)):
            prev, events = message
            if prev <= self.position:
                return self._give_out(events)
        while True:
            page = await self._read(self.tenant, self.run_id, self.position)
            if self._give_out(page.events) or page.ended:
                return True
            if not page.full:
                return False

    def _give_out(self, events: Sequence[RunEvent]) -> bool:
        """Pass on what is new. True after the terminal event, which is always the last."""
        fresh: list[RunEvent] = []
        ended = False
        for event in events:
            if int(event["id"]) > self.position:
                fresh.append(event)
                if ended := event["type"] in TERMINAL:
                    break
        if fresh:
            self.position = int(fresh[-1]["id"])
            batch = Batch(fresh)
            for inbox in self._inboxes:
                inbox.put(batch)
        return ended


def _parse(signal: str) -> tuple[int, list[RunEvent]] | None:
    """A message's ``prev`` and events; None, like a gap, for what is no message."""
    try:
        message: dict[str, Any] = orjson.loads(signal)
        return int(message["prev"]), message["events"]
    except (ValueError, TypeError, KeyError):
        _log.warning("a message about a run cannot be understood: %.80s", signal)
        return None
