"""Server-sent events, as a client reads them (HTML Living Standard, section 9.2.6).

By hand because it is so little, and because ``httpx``'s ``iter_lines`` also breaks lines at U+2028
and other separators that may stand unescaped inside JSON.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event; ``id`` is empty when the stream gave none with it."""

    event: str
    id: str
    data: str


def parse(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """The events of a stream, each as soon as the blank line behind it has arrived."""
    event, identity, data = "message", "", list[str]()
    for line in _lines(chunks):
        if not line:
            if data:
                yield ServerEvent(event, identity, "\n".join(data))
            event, identity, data = "message", "", []
            continue
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        match name:  # a comment has no name
            case "event":
                event = value
            case "id":
                identity = value
            case "data":
                data.append(value)
            case _:
                pass


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    pending = b""
    for chunk in chunks:
        pending += chunk
        # A CR at the very end may be the first half of a CRLF.
        held = b"\r" if pending.endswith(b"\r") else b""
        *whole, rest = _LINE_END.split(pending.removesuffix(b"\r"))
        yield from whole
        pending = rest + held
    if pending.endswith(b"\r"):
        yield pending[:-1]
