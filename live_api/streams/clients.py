"""The clients of a process's live streams: who they are, what keeps them, and what ends them.

One task looks after all of them, once a second: it is cheaper than timers of each.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

from foundation.errors import GraphwrightError
from foundation.tasks import cancel

_log = logging.getLogger(__name__)

Transport: TypeAlias = Literal["sse", "websocket"]

_TURN_SECONDS: Final = 1.0
_HEARTBEAT_SECONDS: Final = 15.0
_SEND_SECONDS: Final = 30.0


class TokenExpired(GraphwrightError):
    """The token that a stream was opened with is good no longer."""

    code: ClassVar[str] = "token_expired"
    status: ClassVar[int] = 401


@dataclass(slots=True, eq=False)
class Client:
    """One connection. ``end`` and ``beat`` are called on the event loop, and must not block.

    ``task`` is the one that sends.
    """

    where: str
    """The path, for the log."""
    expires_at: float
    """Unix time, of its token."""
    end: Callable[[Exception], None]
    beat: Callable[[], None] | None
    """Asks it to send something, since nothing went out for a while."""
    task: asyncio.Task[Any] | None = None
    sent_at: float = field(default_factory=time.monotonic)
    sends_since: float | None = None
    """Monotonic time, while it waits for the client to take what is sent."""
    cut: bool = False
    """Whether we have cancelled its task."""

    def drop(self) -> None:
        """Stop sending, at once."""
        if self.task is not None and not self.cut:
            self.cut = True
            self.task.cancel()


class Clients:
    """Those that are connected. Use it with ``async with``, on one event loop."""

    def __init__(
        self,
        *,
        turn_seconds: float = _TURN_SECONDS,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
        send_seconds: float = _SEND_SECONDS,
    ) -> None:
        """A client is dropped when it takes nothing of what is sent for ``send_seconds``."""
        self._turn_seconds = turn_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds = send_seconds
        self._open: set[Client] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look_after(), name="stream-clients")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            await cancel(self._task)

    @contextmanager
    def sending(self, client: Client) -> Generator[None]:
        """Look after a client whose sending is the current task.

        Where that is cancelled because the client is dropped, the block just ends.
        """
        client.task = asyncio.current_task()
        self._open.add(client)
        try:
            with suppress(_Dropped):
                try:
                    yield
                except asyncio.CancelledError:
                    if not client.cut or client.task is None or client.task.uncancel():
                        raise
                    raise _Dropped from None
        finally:
            self._open.discard(client)

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(self._turn_seconds)
            now, today = time.monotonic(), time.time()
            for client in tuple(self._open):
                self._look_at(client, now, today)

    def _look_at(self, client: Client, now: float, today: float) -> None:
        if client.sends_since is not None and client.sends_since < now - self._send_seconds:
            _log.info("a client that does not read was dropped from %s", client.where)
            client.drop()
        elif client.expires_at <= today:
            client.end(
                TokenExpired(
                    "the token has expired", hint="connect again, with a new token and the last id"
                )
            )
        elif client.beat is not None and client.sent_at < now - self._heartbeat_seconds:
            client.beat()


class _Dropped(Exception):
    """We have cancelled the task ourselves."""
