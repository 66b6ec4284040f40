"""Redis (or Valkey): fast, and never the truth. Losing it slows live views and loses nothing."""

import logging
from ipaddress import ip_address
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

__all__ = ["AsyncRedis", "Redis", "async_redis", "goes_in_clear", "sync_redis"]

_log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 2.0


def async_redis(url: str) -> AsyncRedis:
    """A client for the event loop; it connects on first use and again after a fault."""
    if goes_in_clear(url):
        _log.warning("what Redis carries leaves this machine in clear: use rediss:// in its URL")
    return redis.asyncio.from_url(
        url, decode_responses=True, socket_connect_timeout=_TIMEOUT_SECONDS
    )


def sync_redis(url: str) -> Redis:
    """A client for threads; it connects on first use and again after a fault."""
    return redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=_TIMEOUT_SECONDS,
        socket_timeout=_TIMEOUT_SECONDS,
    )


def goes_in_clear(url: str) -> bool:
    """Whether passwords and live events leave this machine without TLS."""
    parts = urlsplit(url)
    host = parts.hostname or "localhost"
    if parts.scheme != "redis" or host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:  # a name
        return True
