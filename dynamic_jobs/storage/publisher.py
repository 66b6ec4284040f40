"""Committed events go out on Redis, one message per run and batch. Readers survive its absence."""

import logging
import time
from collections.abc import Sequence

import orjson
from redis.exceptions import RedisError

from dynamic_jobs.reading.events import RunEvent, channel_of
from foundation.ids import RunId
from foundation.redis import sync_redis

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


class Publisher:
    """Publishes to Redis; with an empty URL it publishes nothing, and readers poll PostgreSQL."""

    def __init__(self, redis_url: str) -> None:
        self._redis = sync_redis(redis_url) if redis_url else None
        self._away_until = 0.0

    def publish(self, batches: Sequence[tuple[RunId, int, list[RunEvent]]]) -> None:
        """Never raises: what is lost here, a reader finds in PostgreSQL within a second.

        A message that cannot be made costs its run this message, and other runs nothing.
        """
        if self._redis is None or not batches or time.monotonic() < self._away_until:
            return
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for run_id, prev, events in batches:
                message = _message(run_id, prev, events)
                if message is not None:
                    pipeline.publish(channel_of(run_id), message)
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
