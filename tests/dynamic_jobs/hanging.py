"""A server that hangs: what stands before it takes requests, and does not pass them on."""

import re
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Hanging:
    """Passes on what comes at ``address``, and hangs when it is told to."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self._pattern: bytes | None = None
        self.hung = threading.Event()
        """Set when a request was taken that will have no answer."""
        self.address = "{}:{}".format(*self._listening.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def hang(self, requests: bytes = b"") -> None:
        """From now on requests that begin so are not answered; by default, nothing is any more."""
        self._pattern = requests

    def go_on(self) -> None:
        """Requests that come from now on are answered."""
        self._pattern = None

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = self._connect()
                self._sockets += [client, server]
                for given in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=given, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                if self._hangs(piece, asks):
                    self.hung.set()
                    return
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def _hangs(self, piece: bytes, asks: bool) -> bool:
        if self._pattern is None or not asks:
            return self._pattern == b""  # then nothing is answered that was asked before, either
        return re.match(self._pattern, piece) is not None


@contextmanager
def hanging(url: str) -> Generator[Hanging]:
    """In front of the server at this ``unix://``, ``tcp://`` or ``http://`` URL."""
    parts = urlsplit(url)

    def connect() -> socket.socket:
        if parts.scheme == "unix":
            server = socket.socket(socket.AF_UNIX)
            server.connect(parts.path)
            return server
        return socket.create_connection((parts.hostname, parts.port))

    between = Hanging(connect)
    try:
        yield between
    finally:
        between.close()
