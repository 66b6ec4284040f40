"""Redis (or Valkey): fast, and never the truth. Losing it slows live views and loses nothing."""

import redis
import redis.asyncio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

__all__ = ["AsyncRedis", "Redis", "async_redis", "sync_redis"]

_TIMEOUT_SECONDS = 2.0


def async_redis(url: str) -> AsyncRedis:
    """A client for the event loop; it connects on first use and again after a fault."""
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
