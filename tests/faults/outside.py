"""The world outside: a server that nodes with effects call, and that remembers every call."""

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Outside:
    """``calls`` has, by the idempotency key that was sent, when each call came, as Unix time."""

    url: str = ""
    calls: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answering: threading.Event = field(default_factory=threading.Event)
    """While it is cleared, calls get no answer."""


@contextmanager
def outside(delay_seconds: float) -> Generator[Outside]:
    """A server that answers after this time."""
    seen = Outside()
    seen.answering.set()
    ready = threading.Event()
    stopping: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                now = time.time()
                headers = dict(
                    line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line
                )
                await reader.readexactly(int(headers.get("content-length", 0)))
                key = headers["idempotency-key"]
                seen.calls[key].append(now)
                await asyncio.sleep(delay_seconds)
                if not seen.answering.is_set():
                    await asyncio.to_thread(seen.answering.wait)
                body = json.dumps({"key": key}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever called is gone
        finally:
            writer.close()

    async def serve() -> None:
        stop = asyncio.Event()
        stopping.append((asyncio.get_running_loop(), stop))
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="outside", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield seen
    finally:
        seen.answering.set()  # threads that wait for it would wait for ever
        loop, stop = stopping[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
