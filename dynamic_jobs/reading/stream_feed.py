"""What Redis says about runs: one pub/sub connection per process, restored whenever it breaks."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, cast

from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from foundation.redis import AsyncRedis

_log = logging.getLogger(__name__)

Deliver: TypeAlias = Callable[[str], None]

_IDLE_CHANNEL: Final = "graphwright:idle"  # keeps the connection subscribed while no run is watched
_CONFIRM_SECONDS: Final = 0.25
_QUIET_SECONDS: Final = 10.0
_BACKOFF_SECONDS: Final = (0.1, 5.0)


class RedisFeed:
    """Receives the messages of any number of channels and hands each on, in the order of arrival.

    Delivery is best effort: while Redis is away messages are lost, and whoever depends on them must
    notice by other means. ``run`` does the receiving; cancel it to stop.
    """

    def __init__(self, redis: AsyncRedis) -> None:
        # Connections of its own, that do not reconnect by themselves: the client's would, in
        # whichever task happens to use them, and subscribe behind our back.
        pool = redis.connection_pool
        options: dict[str, Any] = dict(pool.connection_kwargs)
        options["retry"] = Retry(NoBackoff(), 0, supported_errors=())
        self._pool = type(pool)(connection_class=pool.connection_class, **options)
        self._watchers: dict[str, list[Deliver]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._pubsub: PubSub | None = None
        self._commands = asyncio.Lock()

    async def watch(self, channel: str, deliver: Deliver) -> None:
        """Ask for a channel's messages. ``deliver`` is called on the event loop; it must not block.

        Returns when Redis has confirmed it, so that nothing published later is missed; or, since
        Redis may be away, after a quarter of a second at most.
        """
        self._watchers.setdefault(channel, []).append(deliver)
        confirmed = self._confirmed[channel] = asyncio.Event()
        async with self._commands:
            if self._pubsub is None:
                return  # `run` asks for all channels when it has connected
            try:
                await self._pubsub.subscribe(channel)
            except (RedisError, OSError):
                return  # `run` notices too, and connects again
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONFIRM_SECONDS):
                await confirmed.wait()

    async def unwatch(self, channel: str, deliver: Deliver) -> None:
        """Take one ``watch`` back; after the last one the channel's messages are not asked for."""
        self._watchers[channel].remove(deliver)
        async with self._commands:
            if self._watchers.get(channel) != []:  # asked for again, or given up already
                return
            del self._watchers[channel], self._confirmed[channel]
            if self._pubsub is not None:
                with suppress(RedisError, OSError):
                    await self._pubsub.unsubscribe(channel)  # pyright: ignore[reportUnknownMemberType]

    async def run(self) -> None:
        """Receive until cancelled, connecting again after each fault, ever more slowly."""
        shortest, longest = _BACKOFF_SECONDS
        delay = shortest
        while True:
            try:
                async with PubSub(self._pool) as pubsub:
                    await pubsub.connect()
                    try:
                        async with self._commands:
                            await pubsub.subscribe(_IDLE_CHANNEL, *self._watchers)
                            self._pubsub = pubsub
                        delay = shortest
                        await self._receive(pubsub)
                    finally:
                        async with self._commands:  # no command may be on its way at the close
                            self._pubsub = None
            except (RedisError, OSError) as error:
                if delay == shortest:
                    _log.warning("Redis is away, live views fall back to PostgreSQL: %s", error)
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - jitter
            delay = min(2 * delay, longest)

    async def aclose(self) -> None:
        """Give the connections back; ``run`` must have ended."""
        await self._pool.disconnect()

    async def _receive(self, pubsub: PubSub) -> None:
        asked = False
        while True:
            message = cast(
                "dict[str, Any] | None", await pubsub.get_message(timeout=_QUIET_SECONDS)
            )
            if message is None:
                # A peer that vanished without closing looks like one with nothing to say.
                if asked:
                    raise RedisConnectionError("no answer to PING")
                await pubsub.execute_command("PING")
                asked = True
                continue
            asked = False
            if message["type"] == "message":
                for deliver in self._watchers.get(message["channel"], ()):
                    deliver(message["data"])
            elif message["type"] == "subscribe" and message["channel"] in self._confirmed:
                self._confirmed[message["channel"]].set()
