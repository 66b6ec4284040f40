"""Counters of one minute that all processes share through Redis, without any request waiting.

    request ─► own count + what the others had told ─► allowed or not      (in memory)
    10 times a second ─► each changed key: own count to Redis, the sum back (one round trip)

Each process writes how much it has counted itself, into a hash of the key's minute. So what is sent
twice counts once, and a Redis that was away, or has lost everything, is told all of the minute.
In between a process does not know what the others have let through: together they let through at
most what comes to them in one exchange above the limit. While Redis is away each counts alone.
"""

import asyncio
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

import redis

from foundation.ids import new_id
from foundation.recent import Recent
from foundation.redis import AsyncRedis
from live_api.rates import KEPT, CounterStorage

EXCHANGE_SECONDS: Final = 0.1
_REDIS_SECONDS: Final = 1.0
_AWAY_SECONDS: Final = 1.0
_SPARE_SECONDS: Final = 60
"""Redis keeps a minute for so long after its end: the clocks of processes differ."""
_PREFIX: Final = "graphwright:rate"


@dataclass(slots=True)
class _Count:
    name: str
    """Of the hash in Redis: the key and its minute."""
    until: float
    own: int = 0
    others: int = 0


class SharedCounters(CounterStorage):
    """The counters that were used last, in bounded memory, for one event loop.

        async with SharedCounters(client) as counters:
            rate = Rate(600, counters, "address")

    A minute begins at the same moment in every process, and at another one for each key, so that
    not everybody who was refused comes back at once.
    """

    def __init__(self, client: AsyncRedis) -> None:
        super().__init__()
        self._client = client
        self._process = new_id()
        self._kept = Recent[str, _Count](KEPT)
        self._changed: set[str] = set()
        self._has_changed = asyncio.Event()
        self._closing = asyncio.Event()
        self._exchanging: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._exchanging = asyncio.create_task(self._exchange_for_ever(), name="rates")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._exchanging is not None
        # Not cancelled: now and then redis-py takes that for a fault of the connection.
        self._closing.set()
        self._has_changed.set()
        await self._exchanging

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        count = self._kept.get(key)
        if count is None or now >= count.until:
            count = _new_count(key, expiry, now)
            self._kept.keep(key, count)
        count.own += amount
        self._changed.add(key)
        self._has_changed.set()
        return count.own + count.others

    def get(self, key: str) -> int:
        count = self._current(key)
        return 0 if count is None else count.own + count.others

    def get_expiry(self, key: str) -> float:
        count = self._current(key)
        return time.time() if count is None else count.until

    def clear(self, key: str) -> None:
        if count := self._kept.get(key):
            count.until = 0.0

    def reset(self) -> int | None:
        self._kept = Recent[str, _Count](KEPT)
        return None

    async def exchange(self) -> bool:
        """Tell Redis what was counted, and learn what the others have; False where it is away."""
        self._has_changed.clear()
        changed, self._changed = self._changed, set[str]()
        counts = [count for key in changed if (count := self._current(key))]
        sent = [count.own for count in counts]
        try:
            async with asyncio.timeout(_REDIS_SECONDS):
                sums = await self._send(counts)
        except (TimeoutError, redis.RedisError, OSError):
            self._changed |= {key for key in changed if self._current(key)}
            if self._changed:
                self._has_changed.set()
            return False
        for count, own, total in zip(counts, sent, sums, strict=True):
            count.others = total - own
        return True

    async def _exchange_for_ever(self) -> None:
        while not self._closing.is_set():
            await self._has_changed.wait()
            pause = EXCHANGE_SECONDS if await self.exchange() else _AWAY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()

    async def _send(self, counts: list[_Count]) -> list[int]:
        """What all processes have counted, in the order of ``counts``."""
        now = time.time()
        async with self._client.pipeline(transaction=False) as pipeline:
            for count in counts:
                pipeline.hset(count.name, self._process, str(count.own))
                pipeline.expire(count.name, round(count.until - now) + _SPARE_SECONDS)
                pipeline.hvals(count.name)
            answers = cast("list[list[str]]", await pipeline.execute())
        return [sum(map(int, each)) for each in answers[2::3]]

    def _current(self, key: str) -> _Count | None:
        count = self._kept.get(key)
        return count if count is not None and time.time() < count.until else None


def _new_count(key: str, expiry: float, now: float) -> _Count:
    offset = zlib.crc32(key.encode()) % expiry
    number = (now - offset) // expiry
    return _Count(f"{_PREFIX}:{key}:{number:.0f}", (number + 1) * expiry + offset)
