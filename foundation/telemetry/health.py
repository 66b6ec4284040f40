"""Is a process alive, and can it do its work? Each dependency is asked and named."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import redis
from psycopg.rows import dict_row

from foundation.database import AsyncPool, Connection, pinned
from foundation.redis import sync_redis
from foundation.schema import Applied
from foundation.settings import Settings

_log = logging.getLogger(__name__)

_SECONDS: Final = 2
_LOOP_SECONDS: Final = 5.0


class Unwell(Exception):
    """Why a check fails, for operators."""


@dataclass(frozen=True, slots=True)
class Check:
    """``ask`` raises where ``name`` is not well; it may block for some seconds.

    Without what is not ``needed`` the process still does its work.
    """

    name: str
    ask: Callable[[], None]
    needed: bool = True


def database(settings: Settings) -> Check:
    """PostgreSQL answers, and has the schema of this release.

    On a connection of its own: pools may be used up.
    """

    def ask() -> None:
        url = pinned(settings.database_url, f"-cstatement_timeout={_SECONDS}s")
        with Connection.connect(
            url, connect_timeout=_SECONDS, autocommit=True, row_factory=dict_row
        ) as connection:
            lacks = Applied.of(connection).lacks
        if lacks:
            raise Unwell(f"lacks {lacks}")

    return Check("database", ask)


def sessions(name: str, pool: AsyncPool, loop: asyncio.AbstractEventLoop) -> Check:
    """A pool of this loop has a connection to give."""

    async def take() -> None:
        async with pool.connection(_SECONDS):
            pass

    def ask() -> None:
        taken = asyncio.run_coroutine_threadsafe(take(), loop)
        try:
            taken.result(2 * _SECONDS)
        except TimeoutError:  # the loop does not turn
            taken.cancel()
            raise Unwell("no answer") from None

    return Check(name, ask)


def redis_server(settings: Settings) -> Check:
    """Redis answers. While it is away live views are slower, and nothing is lost."""

    def ask() -> None:
        with sync_redis(settings.redis_url) as client:
            client.ping()  # pyright: ignore[reportUnknownMemberType]

    return Check("redis", ask, needed=False)


def event_loop(loop: asyncio.AbstractEventLoop, patience_seconds: float = _LOOP_SECONDS) -> Check:
    """The loop turns: nothing blocks it for long."""

    def ask() -> None:
        turned = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop)
        try:
            turned.result(patience_seconds)
        except TimeoutError:
            raise Unwell(f"has not turned for {patience_seconds:g} s") from None

    return Check("event_loop", ask)


def recently(name: str, done_at: Callable[[], float], seconds: float) -> Check:
    """Something was done in the last ``seconds``; ``done_at`` is when, by ``time.monotonic``."""

    def ask() -> None:
        since = time.monotonic() - done_at()
        if since > seconds:
            raise Unwell(f"not for {since:.0f} s" if done_at() else "not yet")

    return Check(name, ask)


def report(checks: Sequence[Check]) -> tuple[bool, dict[str, Any]]:
    """Ask all; whether those that are needed are well, and what each says."""
    said: dict[str, str] = {}
    well = True
    for check in checks:
        try:
            check.ask()
            said[check.name] = "ok"
        except (Unwell, psycopg.Error, redis.RedisError, OSError) as error:
            said[check.name] = (str(error).splitlines() or [type(error).__name__])[0]
            well = well and not check.needed
    return well, {"status": "ready" if well else "not ready", "checks": said}
