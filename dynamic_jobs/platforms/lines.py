"""Lines of which pieces come, with a bound to each."""

from collections.abc import Callable
from typing import Final

MAX_MESSAGE_BYTES: Final = 4 * 2**20
"""Of one message. It is read whole, and may then take twenty times as much memory."""
_LINE_BYTES: Final = 64 * 2**10
"""What is put together of a line that is no message."""
_HEAD_BYTES: Final = 64
"""Where a message has its brace; a pod's log has the time before it."""


class Lines:
    """Puts the lines of one stream together, of which pieces come."""

    def __init__(self, take: Callable[[bytes, bool], None]) -> None:
        """``take`` gets each line without its end, and whether it was cut: it is as long as a
        message may be, or shorter if it is none.
        """
        self._take = take
        self._rest = bytearray()
        self._cut = False

    def feed(self, piece: bytes) -> None:
        """The next piece, wherever it begins and ends."""
        *lines, rest = piece.split(b"\n")
        for line in lines:
            self._add(line)
            self.end()
        self._add(rest)

    def end(self) -> None:
        """The line, or the stream, has ended."""
        if self._rest:
            line, cut = bytes(self._rest).rstrip(b"\r"), self._cut
            self._rest, self._cut = bytearray(), False
            self._take(line, cut)

    def _add(self, piece: bytes) -> None:
        head = (self._rest[:_HEAD_BYTES] + piece[:_HEAD_BYTES])[:_HEAD_BYTES]
        room = (MAX_MESSAGE_BYTES if b"{" in head else _LINE_BYTES) - len(self._rest)
        self._rest += piece[:room]
        self._cut = self._cut or len(piece) > room
