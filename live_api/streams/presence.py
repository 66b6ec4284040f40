"""Who watches a run, at whichever API process.

Each process keeps in Redis, for each run that is watched here, the list of its own watchers, as one
field of the run's hash. It writes it when it changes and every 15 seconds; a list that was not
written for 45 seconds is that of a process that has died.
"""

import asyncio
import logging
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import orjson
from redis.exceptions import RedisError

from foundation.ids import RunId, new_id
from foundation.redis import AsyncRedis
from foundation.tasks import cancel
from live_api.streams.clients import Transport

_log = logging.getLogger(__name__)

_TURN_SECONDS: Final = 0.25
_REFRESH_SECONDS: Final = 15.0
_KEPT_SECONDS: Final = 45.0


@dataclass(frozen=True, slots=True, eq=False)
class Watcher:
    """``since`` is RFC 3339, in UTC, as it is told: ten thousand are told at once."""

    subject: str
    transport: Transport
    since: str

    def document(self) -> dict[str, Any]:
        return {"subject": self.subject, "transport": self.transport, "since": self.since}


class Presence:
    """The watchers of this process, and what is known of others. Use it with ``async with``."""

    def __init__(self, redis: AsyncRedis, *, refresh_seconds: float = _REFRESH_SECONDS) -> None:
        self._redis = redis
        self._refresh_seconds = refresh_seconds
        self._process = new_id()
        self._here: dict[RunId, set[Watcher]] = {}
        self._changed: set[RunId] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tell(), name="stream-presence")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            await cancel(self._task)
        self._changed.update(self._here)
        self._here.clear()
        await self._write()

    @contextmanager
    def watching(self, run_id: RunId, subject: str, transport: Transport) -> Generator[None]:
        """Somebody watches the run, for as long as the block lasts."""
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        watcher = Watcher(subject, transport, since.replace("+00:00", "Z"))
        self._here.setdefault(run_id, set()).add(watcher)
        self._changed.add(run_id)
        try:
            yield
        finally:
            self._changed.add(run_id)
            if here := self._here.get(run_id):
                here.discard(watcher)
                if not here:
                    del self._here[run_id]

    async def watchers(self, run_id: RunId) -> tuple[list[dict[str, Any]], bool]:
        """Who watches a run, first the longest; and whether other processes could be asked."""
        found = [watcher.document() for watcher in self._here.get(run_id, ())]
        complete = True
        try:
            others = await self._redis.hgetall(_key(run_id))
            for process, text in others.items():
                told = orjson.loads(text)
                if process != self._process and told["until"] > time.time():
                    found += told["watchers"]
        except (RedisError, OSError) as error:
            _log.warning("Redis is away, so watchers at other processes are unknown: %s", error)
            complete = False
        return sorted(found, key=lambda watcher: watcher["since"]), complete

    async def _tell(self) -> None:
        refreshed = time.monotonic()
        while True:
            await asyncio.sleep(_TURN_SECONDS)
            if time.monotonic() >= refreshed + self._refresh_seconds:
                refreshed = time.monotonic()
                self._changed.update(self._here)
            await self._write()

    async def _write(self) -> None:
        """Tell others what has changed, in one round trip. What fails is told at the next turn."""
        changed = tuple(self._changed)
        if not changed:
            return
        self._changed.clear()
        pipeline = self._redis.pipeline(transaction=False)
        for run_id in changed:
            if here := self._here.get(run_id):
                told = {
                    "until": time.time() + _KEPT_SECONDS,
                    "watchers": [watcher.document() for watcher in here],
                }
                pipeline.hset(_key(run_id), self._process, orjson.dumps(told))
                pipeline.expire(_key(run_id), int(_KEPT_SECONDS))
            else:
                pipeline.hdel(_key(run_id), self._process)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            _log.debug("Redis is away, so others do not know who watches here: %s", error)
            self._changed.update(run_id for run_id in changed if run_id in self._here)


def _key(run_id: RunId) -> str:
    return f"graphwright:watchers:{run_id}"
