"""From where a request comes: the peer, or who a trusted proxy says that it comes from."""

import ipaddress
from typing import Final

from starlette.middleware import Middleware
from starlette.types import Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_NETWORK_BITS: Final = 64
"""Of IPv6, what one client is given."""


def proxies(trusted: tuple[str, ...]) -> list[Middleware]:
    """Take X-Forwarded-For and X-Forwarded-Proto from these peers, addresses or networks.

    Of several addresses the last that is no trusted proxy counts: what a client writes itself comes
    before it.
    """
    if not trusted:
        return []
    return [Middleware(ProxyHeadersMiddleware, trusted_hosts=list(trusted))]


def client_of(scope: Scope) -> str:
    """Who is calling, as far as counting goes: one address, or a network of IPv6."""
    client = scope.get("client")
    host: str = client[0] if client else ""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    # ::ffff:192.0.2.7 is how a socket for both kinds names an address of IPv4.
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((address, _NETWORK_BITS), strict=False))
