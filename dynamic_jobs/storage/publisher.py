"""Committed events go out on Redis: a message per run and batch, and one per tenant that says only
that there are some. Readers survive its absence."""

import logging
import time
from collections.abc import Collection, Sequence

import orjson
from redis.client import Pipeline
from redis.exceptions import RedisError

from dynamic_jobs.reading.events import RunEvent, channel_of, tenant_channel_of
from foundation.ids import RunId, TenantId
from foundation.redis import sync_redis

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


class Publisher:
    """Publishes to Redis; with an empty URL it publishes nothing, and readers poll PostgreSQL."""

    def __init__(self, redis_url: str) -> None:
        self._redis = sync_redis(redis_url) if redis_url else None
        self._away_until = 0.0

    def publish(self, batches: Sequence[tuple[TenantId, RunId, int, list[RunEvent]]]) -> None:
        """Never raises: what is lost here, a reader finds in PostgreSQL within a second.

        A message that cannot be made costs its run this message, and other runs nothing.
        """
        if not batches or (pipeline := self._pipeline()) is None:
            return
        for _, run_id, prev, events in batches:
            message = _message(run_id, prev, events)
            if message is not None:
                pipeline.publish(channel_of(run_id), message)
        self._send(pipeline, {tenant for tenant, *_ in batches})

    def tell(self, tenants: Collection[TenantId]) -> None:
        """Say only that these tenants' runs have events. Never raises, and any thread may call."""
        if (pipeline := self._pipeline()) is not None:
            self._send(pipeline, tenants)

    def _pipeline(self) -> Pipeline | None:
        if self._redis is None or time.monotonic() < self._away_until:
            return None
        return self._redis.pipeline(transaction=False)

    def _send(self, pipeline: Pipeline, tenants: Collection[TenantId]) -> None:
        try:
            for tenant in tenants:
                pipeline.publish(tenant_channel_of(tenant), "")
            pipeline.execute()
        except RedisError as error:
            # A dead Redis must not slow the writer: leave it alone for a while.
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            _log.warning("Redis is away, live views fall back to PostgreSQL: %s", error)
        except Exception:  # the events are committed: whatever this is, it does not undo that
            _log.exception("committed events could not be published")

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()


def _message(run_id: RunId, prev: int, events: list[RunEvent]) -> bytes | None:
    try:
        return orjson.dumps({"prev": str(prev), "events": events})
    except Exception:  # nested too deep, half a surrogate pair: what users' code may return
        _log.exception("events of run %s cannot be published", run_id)
        return None
