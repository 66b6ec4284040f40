"""Ports for the processes of one stack, which no other stack on this machine takes meanwhile.

Between choosing a port and the child's ``listen`` seconds pass, and gRPC servers even share a port
without complaint. So the supervisor holds each number for as long as it lives, and a claim ends
with its process however that dies. It holds a TCP socket that is bound and never listens: the
kernel then gives that number to nobody who asks for any port, while a child, which asks for this
one as servers do (``SO_REUSEADDR``), may listen on it. Another supervisor would ask in the same
way, so the UDP socket of that number is held too, and that is exclusive.
"""

import errno
import socket
from contextlib import ExitStack

from foundation.errors import GraphwrightError

_NEARBY = 200
_MAX_PORT = 65_535


class NoPortFree(GraphwrightError):
    """Neither the wanted port nor any near it can be had."""

    code = "no_port_free"


class PortClaims:
    """The ports of one stack; close it to give them back."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def claim(self, host: str, wanted: int) -> int:
        """``wanted`` if it is free, else the next free one above it; 0 means any.

        Raises NoPortFree, also when ``host`` is no address of this machine.
        """
        nearby = range(wanted, min(wanted + _NEARBY, _MAX_PORT + 1))
        candidates = nearby if wanted else [0] * _NEARBY
        for candidate in candidates:
            port = self._try(host, candidate)
            if port is not None:
                return port
        raise NoPortFree(f"no free port at or above {wanted} on {host}")

    def close(self) -> None:
        self._held.close()

    def _try(self, host: str, port: int) -> int | None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with ExitStack() as held:
            stream = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            # As servers bind: past connections that linger, but not beside a listener.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not _binds(stream, host, port):
                return None
            port = stream.getsockname()[1]
            datagram = held.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if not _binds(datagram, host, port):
                return None
            self._held.push(held.pop_all())
            return port


def _binds(sock: socket.socket, host: str, port: int) -> bool:
    try:
        sock.bind((host, port))
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            return False
        raise NoPortFree(f"cannot listen on {host}: {error.strerror}") from error
    return True
