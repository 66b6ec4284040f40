"""What engines that are reached over HTTP have in common."""

import asyncio
import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import uvloop

from bench.engines.base import PAUSE_SECONDS
from bench.support.http import Http
from bench.support.processes import Child

T = TypeVar("T")

HOST: Final = "127.0.0.1"
_READY_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.1


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a uvloop of its own."""
    new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


async def repeated(once: Callable[[], Awaitable[float]], count: int, seconds: float) -> list[float]:
    """``Engine.one_by_one`` of something that says itself how many seconds it took."""
    until = time.perf_counter() + seconds
    found: list[float] = []
    while not found or (len(found) < count and time.perf_counter() < until):
        # Not in step with any timer of the engine.
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))
        found.append(await once())
    return found


async def spread(base: str, request: Callable[[Http], bytes], count: int, connections: int) -> None:
    """Send a request ``count`` times over several connections."""
    left = iter(range(count))

    async def one() -> None:
        async with Http(base) as http:
            prepared = request(http)
            for _ in left:
                await http.send(prepared)

    await asyncio.gather(*(one() for _ in range(min(connections, count))))


def free_port() -> int:
    """A port that is free now, for a program that cannot choose one itself."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_until_ready(url: str, child: Child) -> None:
    """Return when ``url`` answers with success. Raises RuntimeError with the end of the log."""
    deadline = time.monotonic() + _READY_SECONDS
    while not _answers(url):
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{url} does not answer: {child.log_tail()}")
        time.sleep(_POLL_SECONDS)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status < 300
    except (OSError, urllib.error.URLError):
        return False
