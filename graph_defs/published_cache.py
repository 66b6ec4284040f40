"""Documents of published versions in Redis, so that reading graphs spares PostgreSQL. Short ones
that were read lately are at hand in the process too, which spares Redis.

Who asks knows from PostgreSQL which version is published, so an entry of another one is no entry:
publishing makes it stale, and the next reader replaces it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis import RedisError

from foundation.ids import GraphId, TenantId
from foundation.recent import Recent
from foundation.redis import AsyncRedis

_log = logging.getLogger(__name__)

_KEPT_SECONDS: Final = 3_600
_MAX_LENGTH: Final = 2**20
"""Longer documents are read from PostgreSQL."""
_AT_HAND: Final = 256
_AT_HAND_LENGTH: Final = 32 * 2**10
"""So they take 8 MiB, or four times that if they are full of what is not Latin."""
_PATIENCE_SECONDS: Final = 0.25
_PAUSE_SECONDS: Final = 5.0


class PublishedCache:
    """A cache of the newest document of each graph that is read. For one event loop."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._at_hand = Recent[tuple[TenantId, GraphId], tuple[int, str]](_AT_HAND)
        self._away_until = 0.0
        """Redis did not answer, and is left alone until then, by the monotonic clock."""

    async def document(
        self,
        tenant: TenantId,
        graph_id: GraphId,
        version: int,
        read: Callable[[], Awaitable[str]],
    ) -> str:
        """The document of the graph's version that is published, as JSON text; ``read`` has it
        otherwise.
        """
        at_hand = self._at_hand.get((tenant, graph_id))
        if at_hand is not None and at_hand[0] == version:
            return at_hand[1]
        document = await self._shared(_key(tenant, graph_id), f"{version}\n", read)
        if len(document) <= _AT_HAND_LENGTH:
            self._at_hand.keep((tenant, graph_id), (version, document))
        return document

    async def forget(self, tenant: TenantId, graph_id: GraphId) -> None:
        """Drop what Redis keeps of a graph that was deleted."""
        await self._asked(lambda: self._redis.delete(_key(tenant, graph_id)))

    async def _shared(self, key: str, mark: str, read: Callable[[], Awaitable[str]]) -> str:
        found = await self._asked(lambda: self._redis.get(key))
        if isinstance(found, str) and found.startswith(mark):
            return found[len(mark) :]
        document = await read()
        if len(document) <= _MAX_LENGTH:
            await self._asked(lambda: self._redis.set(key, mark + document, ex=_KEPT_SECONDS))
        return document

    async def _asked(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """What Redis answers; None while it is away."""
        if time.monotonic() < self._away_until:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await command()
        except (RedisError, OSError) as error:  # a timeout is one of these
            _log.warning("published documents are read from PostgreSQL for now: %s", error)
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            return None


def _key(tenant: TenantId, graph_id: GraphId) -> str:
    return f"graphwright:published:{tenant}:{graph_id}"
