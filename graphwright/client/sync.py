"""Carrying calls out in the calling thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

import httpx

from foundation.errors import RateLimited, Unavailable
from graphwright.client.calls import Call, Listing, Stream
from graphwright.client.errors import raise_for_fault, unreachable
from graphwright.client.retrying import Attempts, Retry
from graphwright.client.tail import Tail
from graphwright.client.types import Event

T = TypeVar("T")


class Sync:
    """Sends requests, again where that is safe and may help. Threads may share it.

    Once ``interrupted`` is set it waits for nothing any more.
    """

    def __init__(self, http: httpx.Client, retry: Retry, interrupted: threading.Event) -> None:
        self.http = http
        self._retry = retry
        self._interrupted = interrupted

    def send(self, call: Call[T]) -> T:
        attempts = Attempts(self._retry, repeatable=call.repeatable)
        while True:
            try:
                answer = self.http.send(call.request(self.http))
            except httpx.TransportError as error:
                wait = attempts.wait(error)
                if wait is None or self._interrupted.wait(wait):
                    raise unreachable(str(self.http.base_url), error) from error
                continue
            wait = attempts.wait(answer)
            if wait is None or self._interrupted.wait(wait):
                raise_for_fault(answer)
                return call.read(answer)

    def items(self, listing: Listing[T]) -> Iterator[T]:
        """A page at a time, as they are asked for."""
        cursor: str | None = None
        while True:
            page = self.send(listing.page(cursor))
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def events(self, stream: Stream, deadline: float | None = None) -> Iterator[Event]:
        """Raises TimeoutError past the deadline."""
        tail = Tail(stream, self._retry, deadline)
        while True:
            refused: httpx.Response | None = None
            try:
                answer = self.http.send(tail.request(self.http), stream=True)
                with closing(answer):
                    if not answer.is_success:
                        answer.read()
                        refused = answer
                        raise_for_fault(answer)
                    tail.opened(answer)
                    for chunk in answer.iter_bytes():
                        yield from tail.feed(chunk)
                        if tail.ended:
                            break
                        if tail.due_to_reconnect:
                            break
            except (httpx.TransportError, Unavailable, RateLimited) as error:
                tail.cause = error
            if tail.ended:
                return
            self._pause(tail, refused)

    def _pause(self, tail: Tail, refused: httpx.Response | None) -> None:
        if tail.late:
            raise TimeoutError
        wait = tail.wait(refused)
        if wait is None or self._interrupted.wait(wait):
            raise unreachable(str(self.http.base_url), tail.cause)

    def follow(self, stream: Stream, then: Call[T], timeout: float | None) -> T:
        """What ``then`` gives at the stream's end. Raises TimeoutError after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for _ in self.events(stream, deadline):
            pass
        return self.send(then)

    def polled(self, call: Call[T], over: Callable[[T], bool], seconds: float) -> Iterator[T]:
        """What the call gives, and again whenever that is another, until it is ``over``."""
        shown: T | None = None
        while True:
            found = self.send(call)
            if found != shown:
                yield found
                shown = found
            if over(found) or self._interrupted.wait(seconds):
                return
