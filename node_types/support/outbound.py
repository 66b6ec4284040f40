"""HTTP to the outside: connects to no other address than one that was checked.

The name is resolved here, its addresses are checked, and the connection goes to a checked *address*
(TLS still verifies the *name*). A second resolution between check and connect, which DNS rebinding
relies on, never happens; and since a redirect is one more request through the same transport, it is
checked in the same way.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from functools import cache

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


class AddressRefused(Exception):
    """Every address of the host is one that may not be called."""


def is_any(address: Address) -> bool:
    """Every address there is."""
    return True


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, also where one is wrapped in another."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast


class CheckedTransport(httpx.AsyncHTTPTransport):
    """Resolves, checks and connects to addresses for which ``allows`` holds."""

    def __init__(self, allows: Callable[[Address], bool]) -> None:
        # Idle connections are kept by address: reusing one could carry a request to another name.
        super().__init__(
            verify=_tls(), trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._allows = allows

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the first checked address that accepts a connection.

        Raises:
            AddressRefused: no address of the host may be called.
            httpx.TransportError: no answer.
        """
        host = request.url.host
        addresses = await _resolve(host, request.url.port)
        allowed = [address for address in addresses if self._allows(address)]
        if not allowed:
            raise AddressRefused(host)
        failure: httpx.TransportError | None = None
        for address in allowed:
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,  # holds `Host`, set from the name
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await super().handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error  # nothing was sent, so the next address may be tried
        assert failure is not None
        raise failure


async def _resolve(host: str, port: int | None) -> list[Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError("the host's name cannot be resolved") from error
    # An IPv6 scope ("%eth0") is cut off: link-local addresses are told by their prefix.
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


@cache
def _tls() -> ssl.SSLContext:
    """Loading the certificates takes tens of milliseconds; a process does it once."""
    return httpx.create_ssl_context()
