"""Following a stream of events over as many connections as it takes.

The position is the last SSE id: that of an event that was handed out, or of a frame without one. So
nothing is missed or comes twice, whichever API process answers.
"""

import json
import time
from collections.abc import Iterator
from typing import cast

import httpx

from graphwright.client.calls import Stream
from graphwright.client.retrying import Retry
from graphwright.client.sse import Comment, Parser, Position
from graphwright.client.types import Event

TERMINAL = frozenset({"run.succeeded", "run.failed", "run.cancelled"})

_SILENT_SECONDS = 60.0  # a stream that is silent for longer is dead: the API sends comments
_CONNECT_SECONDS = 10.0
_NO_CONTENT = 204
_HEARTBEAT = "heartbeat"


class Tail:
    """One stream as it is followed; it sends nothing itself.

    ``deadline`` is of ``time.monotonic``: whoever follows stops there, by :attr:`late`.
    """

    def __init__(self, stream: Stream, retry: Retry, deadline: float | None = None) -> None:
        self._stream = stream
        self._retry = retry
        self._deadline = deadline
        self._after = stream.after
        self._parser = Parser()
        self._broken = 0
        self._heard = False
        self.cause: Exception | str = ""
        """Why the last connection ended."""
        self.ended = False

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The next connection's."""
        headers = {"Accept": "text/event-stream"}
        if self._after is not None:
            headers["Last-Event-ID"] = self._after
        timeout = httpx.Timeout(self._patience, connect=_CONNECT_SECONDS)
        query = dict(self._stream.query)
        return http.build_request(
            "GET", self._stream.path, params=query, headers=headers, timeout=timeout
        )

    def opened(self, answer: httpx.Response) -> None:
        self._parser, self._heard = Parser(), False
        self.cause = "its stream of events ended early"
        self.ended = answer.status_code == _NO_CONTENT

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are complete with this part of the answer."""
        for message in self._parser.feed(chunk):
            if isinstance(message, Comment):
                self._hear(message.text)
                continue
            if isinstance(message, Position):
                self._after = message.id
                continue
            event = cast("Event", json.loads(message.data))
            if message.id:
                self._after, self._broken = message.id, 0
            self.ended = self._stream.ends and event["type"] in TERMINAL
            yield event
            if self.ended:
                return

    @property
    def due_to_reconnect(self) -> bool:
        """Whether to connect anew, lest the connection wait for its next part past the deadline."""
        return self._deadline is not None and self._heard

    @property
    def late(self) -> bool:
        """Whether the deadline is past."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def wait(self, refused: httpx.Response | None = None) -> float | None:
        """Seconds until the next connection, None to give up: ``cause`` says why."""
        self._broken += 1
        if self._broken > self._retry.stream_attempts:
            return None
        seconds = self._retry.seconds(self._broken, refused)
        if seconds is None or self._deadline is None:
            return seconds
        return max(0.0, min(seconds, self._deadline - time.monotonic()))

    def _hear(self, comment: str) -> None:
        if comment == _HEARTBEAT:
            self._broken, self._heard = 0, True
        elif comment:
            self.cause = comment

    @property
    def _patience(self) -> float:
        if self._deadline is None:
            return _SILENT_SECONDS
        return max(0.001, min(_SILENT_SECONDS, self._deadline - time.monotonic()))
