"""A receiver of webhooks that answers as a test wants it to."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Received:
    """One call."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with these in turn, then 200; a number is a status, a text the head of an answer."""

    answers: list[int | str] = field(default_factory=list[int | str])
    calls: list[Received] = field(default_factory=list[Received])
    port: int = 0
    holds: asyncio.Event | None = None
    """While it is not set, calls get no answer."""
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def until(self, calls: int) -> Sequence[Received]:
        """Wait for so many calls in all."""
        async with asyncio.timeout(60), self._came:
            await self._came.wait_for(lambda: len(self.calls) >= calls)
        return self.calls

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.splitlines()
        given = dict(line.split(": ", 1) for line in lines if line)
        headers = {name.lower(): value for name, value in given.items()}
        body = await reader.readexactly(int(headers["content-length"]))
        async with self._came:
            self.calls.append(Received(first.split(" ")[1], headers, body))
            answer = self.answers.pop(0) if self.answers else 200
            self._came.notify_all()
        if self.holds is not None:
            await self.holds.wait()
        told = f"{answer} Told" if isinstance(answer, int) else answer
        writer.write(f"HTTP/1.1 {told}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiving(*answers: int | str) -> AsyncGenerator[Receiver]:
    """A receiver on a port of loopback."""
    receiver = Receiver(list(answers))
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
