"""Ports for the processes of one stack, which no other stack on this machine takes meanwhile.

Between choosing a port and the child's ``listen`` seconds pass, and gRPC servers even share a port
without complaint. So the supervisor claims each number by holding the UDP socket of that number for
as long as it lives: nobody else's TCP is touched, two supervisors never choose the same, and a
claim ends with its process however that dies.
"""

import errno
import socket
from contextlib import closing

from foundation.errors import GraphwrightError

_NEARBY = 200
_MAX_PORT = 65_535


class NoPortFree(GraphwrightError):
    """Neither the wanted port nor any near it can be had."""

    code = "no_port_free"


class PortClaims:
    """The ports of one stack; close it to give them back."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

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
        for held in self._held:
            held.close()
        self._held.clear()

    def _try(self, host: str, port: int) -> int | None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            # As servers bind: past connections that linger, but not beside a listener.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not _binds(probe, host, port):
                return None
            port = probe.getsockname()[1]
        hold = socket.socket(family, socket.SOCK_DGRAM)
        if not _binds(hold, host, port):
            hold.close()
            return None
        self._held.append(hold)
        return port


def _binds(sock: socket.socket, host: str, port: int) -> bool:
    try:
        sock.bind((host, port))
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:
            return False
        raise NoPortFree(f"cannot listen on {host}: {error.strerror}") from error
    return True
