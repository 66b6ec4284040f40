"""Server-sent events, as a client reads them (HTML Living Standard, section 9.2.6).

By hand because it is so little, and because ``httpx``'s ``iter_lines`` also breaks lines at U+2028
and other separators that may stand unescaped inside JSON.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event; ``id`` is empty when the stream gave none with it."""

    event: str
    id: str
    data: str


@dataclass(frozen=True, slots=True)
class Position:
    """How far the stream has come without an event: a frame of an ``id`` alone."""

    id: str


@dataclass(frozen=True, slots=True)
class Comment:
    """A line that is for whoever keeps the connection."""

    text: str


class Parser:
    """Of one connection's bytes, which may be cut anywhere."""

    def __init__(self) -> None:
        self._pending = b""
        self._after_cr = False
        self._reset()

    def feed(self, chunk: bytes) -> Iterator[ServerEvent | Position | Comment]:
        """What is complete with this chunk: a frame as soon as its blank line is there."""
        for line in self._lines(chunk):
            if not line:
                if self._data:
                    yield ServerEvent(self._event, self._id, "\n".join(self._data))
                elif self._id:
                    yield Position(self._id)
                self._reset()
                continue
            name, _, value = line.decode("utf-8", "replace").partition(":")
            value = value.removeprefix(" ")
            match name:
                case "":
                    yield Comment(value)
                case "event":
                    self._event = value
                case "id":
                    self._id = value
                case "data":
                    self._data.append(value)
                case _:
                    pass

    def _reset(self) -> None:
        self._event, self._id, self._data = "message", "", list[str]()

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        # A CR ends its line at once; a LF that comes with the next chunk belongs to it.
        self._after_cr = chunk.endswith(b"\r") or (self._after_cr and not chunk)
        *whole, self._pending = _LINE_END.split(self._pending + chunk)
        yield from whole
