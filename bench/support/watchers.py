"""Many clients of live streams in one process: ``python -m bench.support.watchers KIND URL TOKEN``.

``KIND`` is ``sse`` or ``websocket``. Reads ``open RUN_ID …`` a line, and opens one stream a run id;
then ``count SECONDS``, and answers with a :class:`Seen` of the events that came meanwhile. The
events are log lines that say when they were logged, as Unix time.

No more is parsed of what arrives than where events and frames begin, so that the clients cost
little beside the server. Their part of the processor is in the answer.
"""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self, cast
from urllib.parse import urlsplit

from bench.engines.driver import ask_line
from bench.engines.web import run
from bench.support.figures import quantile
from bench.support.processes import Child, Processes

_AT_ONCE: Final = 64
_FIRST: Final = b'"run.queued"'
_MESSAGE: Final = b'"message":"'
_END: Final = b'"'
_HEAD_END: Final = b"\r\n\r\n"
_PING: Final = 0x89
_PONG: Final = 0x8A
_MASKED: Final = 0x80
_NO_MASK: Final = bytes(4)


@dataclass(frozen=True, slots=True)
class Seen:
    """Events that arrived at all clients; seconds from the log line to the client; ``share`` is the
    clients' part of one core. ``ended`` is how many streams have ended by now; none should.
    """

    events: int
    p50: float
    p99: float
    longest: float
    share: float
    ended: int


class Watchers:
    """The process, from the outside. It starts with ``with``."""

    def __init__(self, processes: Processes, kind: str, url: str, token: str) -> None:
        self._processes = processes
        command = (sys.executable, "-m", "bench.support.watchers", kind, url, token)
        self._child: Child = processes.start(f"watchers-{kind}", command, pipes=True)

    def open(self, run_ids: Sequence[str]) -> None:
        """Open a stream of each, as often as it is named. Raises where one is refused."""
        said = ask_line(self._child, f"open {' '.join(run_ids)}")
        if said.strip() != b"opened":
            raise RuntimeError(f"{said!r}: {self._child.log_tail()}")

    def count(self, seconds: float) -> Seen:
        return Seen(**json.loads(ask_line(self._child, f"count {seconds}")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._processes.end(self._child)


class _All:
    """What the clients have seen between them."""

    def __init__(self) -> None:
        self.took: list[float] = []
        """Seconds of each event, whoever it came to."""
        self.ended: list[str] = []
        """Why each stream ended that did."""


class _Client(asyncio.Protocol):
    """One stream of server-sent events. ``opened`` is done once its run's first event has come:
    an answer's status may be sent long before the stream has begun.
    """

    def __init__(self, request: bytes, status: bytes, seen: _All) -> None:
        self._request = request
        self._status = status
        self._seen = seen
        self._rest: bytes = b""
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        data = self._rest + data
        if not self.opened.done():
            if not data.startswith(self._status[: len(data)]):
                self.opened.set_exception(RuntimeError(repr(data[:300])))
                return
            if _FIRST not in data:
                self._rest = data
                return
            self.opened.set_result(None)
            data = data[data.index(_HEAD_END) + len(_HEAD_END) :]
        whole = self.whole(data)
        self._rest = data[whole:]
        found = data.find(_MESSAGE, 0, whole)
        while found >= 0:
            begin = found + len(_MESSAGE)
            self._seen.took.append(now - float(data[begin : data.index(_END, begin)]))
            found = data.find(_MESSAGE, begin, whole)

    def whole(self, data: bytes) -> int:
        """Where the last whole event ends."""
        return data.rfind(_HEAD_END) + len(_HEAD_END) if _HEAD_END in data else 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.ended.append(repr(exc))
        if not self.opened.done():
            self.opened.set_exception(RuntimeError(f"a stream ended at once: {exc}"))


class _Socket(_Client):
    """One WebSocket. It answers pings, as every client does; who does not is cut off."""

    def whole(self, data: bytes) -> int:
        begin = 0
        while frame := _frame(data, begin):
            if frame.opcode == _PING:
                payload = data[frame.begin : frame.end]
                head = bytes((_PONG, _MASKED | len(payload)))
                self.transport.write(head + _NO_MASK + payload)
            begin = frame.end
        return begin


class _Frame(NamedTuple):
    """``opcode`` with the bit that says that no frame of the message follows."""

    opcode: int
    begin: int
    end: int


def _frame(data: bytes, start: int) -> _Frame | None:
    """The frame that begins here, if it is whole (RFC 6455 section 5.2)."""
    begin = start + 2
    if len(data) < begin:
        return None
    length = data[start + 1]
    if wide := {126: 2, 127: 8}.get(length, 0):
        begin, length = begin + wide, int.from_bytes(data[begin : begin + wide])
    end = begin + length
    return _Frame(data[start], begin, end) if len(data) >= end else None


async def _main() -> None:
    kind, url, token = sys.argv[1:]
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    where = (parts.hostname, parts.port)
    seen = _All()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def follow(run_id: str) -> None:
        request, status = _request(kind, parts.netloc, token, run_id)
        client_of = _Client if kind == "sse" else _Socket
        async with gate:
            _, client = await loop.create_connection(
                lambda: client_of(request, status, seen), *where
            )
            await client.opened

    while line := await asyncio.to_thread(sys.stdin.readline):
        command, *given = line.split()
        if command == "open":
            await asyncio.gather(*map(follow, given))
            answer = "opened"
        else:
            seen.took.clear()
            began, busy = time.monotonic(), time.process_time()
            await asyncio.sleep(float(given[0]))
            share = (time.process_time() - busy) / (time.monotonic() - began)
            answer = json.dumps(asdict(_told(seen, share)))
        answers.write(f"{answer}\n")
        answers.flush()


def _told(seen: _All, share: float) -> Seen:
    took, ended = seen.took, len(seen.ended)
    for why in set(seen.ended):
        print(f"{seen.ended.count(why):,} streams ended: {why}")
    if not took:
        return Seen(0, 0.0, 0.0, 0.0, share, ended)
    return Seen(len(took), quantile(took, 0.5), quantile(took, 0.99), max(took), share, ended)


def _request(kind: str, host: str, token: str, run_id: str) -> tuple[bytes, bytes]:
    """What a client sends, and how the answer begins."""
    head = f"Host: {host}\r\nAuthorization: Bearer {token}\r\n"
    path = f"GET /api/v1/runs/{run_id}"
    if kind == "sse":
        request = f"{path}/events HTTP/1.1\r\n{head}Accept: text/event-stream\r\n\r\n"
        return request.encode(), b"HTTP/1.1 200"
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    )
    return f"{path}/ws HTTP/1.1\r\n{head}{upgrade}\r\n".encode(), b"HTTP/1.1 101"


if __name__ == "__main__":
    run(_main())
