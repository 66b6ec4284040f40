"""Carrying calls out on an event loop: what ``sync`` does, with asyncio or trio."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

import anyio
import httpx

from foundation.errors import RateLimited, Unavailable
from graphwright.client.calls import Call, Listing, Stream
from graphwright.client.errors import raise_for_fault, unreachable
from graphwright.client.retrying import Attempts, Retry
from graphwright.client.tail import Tail
from graphwright.client.types import Event

T = TypeVar("T")


class Async:
    """Sends requests, again where that is safe and may help."""

    def __init__(self, http: httpx.AsyncClient, retry: Retry) -> None:
        self.http = http
        self._retry = retry

    async def send(self, call: Call[T]) -> T:
        attempts = Attempts(self._retry, repeatable=call.repeatable)
        while True:
            try:
                answer = await self.http.send(call.request(self.http))
            except httpx.TransportError as error:
                wait = attempts.wait(error)
                if wait is None:
                    raise unreachable(str(self.http.base_url), error) from error
            else:
                wait = attempts.wait(answer)
                if wait is None:
                    raise_for_fault(answer)
                    return call.read(answer)
            await anyio.sleep(wait)

    async def items(self, listing: Listing[T]) -> AsyncIterator[T]:
        """A page at a time, as they are asked for."""
        cursor: str | None = None
        while True:
            page = await self.send(listing.page(cursor))
            for item in page["items"]:
                yield item
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def events(self, stream: Stream) -> AsyncGenerator[Event]:
        tail = Tail(stream, self._retry)
        while True:
            refused: httpx.Response | None = None
            try:
                answer = await self.http.send(tail.request(self.http), stream=True)
                try:
                    if not answer.is_success:
                        await answer.aread()
                        refused = answer
                        raise_for_fault(answer)
                    tail.opened(answer)
                    async for chunk in answer.aiter_bytes():
                        for event in tail.feed(chunk):
                            yield event
                        if tail.ended:
                            break
                finally:
                    await answer.aclose()
            except (httpx.TransportError, Unavailable, RateLimited) as error:
                tail.cause = error
            if tail.ended:
                return
            wait = tail.wait(refused)
            if wait is None:
                raise unreachable(str(self.http.base_url), tail.cause)
            await anyio.sleep(wait)

    async def follow(self, stream: Stream, then: Call[T], timeout: float | None) -> T:  # noqa: ASYNC109
        """What ``then`` gives at the stream's end. Raises TimeoutError after so many seconds."""
        with anyio.fail_after(timeout):
            async with aclosing(self.events(stream)) as events:
                async for _ in events:
                    pass
        return await self.send(then)

    async def polled(
        self, call: Call[T], over: Callable[[T], bool], seconds: float
    ) -> AsyncIterator[T]:
        """What the call gives, and again whenever that is another, until it is ``over``."""
        shown: T | None = None
        while True:
            found = await self.send(call)
            if found != shown:
                yield found
                shown = found
            if over(found):
                return
            await anyio.sleep(seconds)
