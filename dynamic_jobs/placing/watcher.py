"""One worker watches what was started elsewhere: that it claims its run, and that it goes.

Once a run was claimed, its lease says whether it is alive, as that of any run.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

import psycopg
from dagster import DagsterEventType
from psycopg.rows import DictRow

from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.placing import statements
from dynamic_jobs.placing.base import (
    AWAY,
    Health,
    NoSuchPlatform,
    Placed,
    PlacementFailed,
    Platform,
    removed,
)
from dynamic_jobs.placing.placer import PlatformOf
from dynamic_jobs.storage import EventWriter
from foundation.database import AsyncConnection, Pool, async_connect
from foundation.ids import RunId, TenantId
from foundation.turns import give_up_after, has_turn, is_taken
from graph_defs.placement import Isolation

_log = logging.getLogger(__name__)

_TURN: Final = "placements"
_LOOK_SECONDS: Final = 2.0
_LOOK_AT_MOST_SECONDS: Final = 120.0
"""Then another worker may watch, which may reach what this one does not."""
_AT_ONCE: Final = 500
_FIRST: Final = (datetime.min.replace(tzinfo=UTC), RunId(str(UUID(int=0))))
"""The place of the first page of a look."""
_AWAY_SECONDS: Final = 30.0
_REFUSED_SECONDS: Final = 300.0
"""When something is looked at again after its platform was away, or has refused to answer."""
_ENDING_SECONDS: Final = 5.0
"""When something is looked at again that has been told to end."""
_FIRST_LOOK_SECONDS: Final = 4.0
"""Before that nobody asks how something is that has just been started."""
_LEAVE_SECONDS: Final = 30.0
"""Time that a process has to leave once its run has ended."""

_State: TypeAlias = Literal["placed", "left", "ended", "over"]
"""Of the run: nobody has claimed it yet; it is on the queue or paused; it has ended by itself; it
was cancelled, or is gone."""


_UNTOLD: Final = {
    "starting": "it has not started",
    "running": "it has not claimed the run",
    "finished": "it ended without the run",
    "lost": "it broke",
    "gone": "it is not there",
}
"""What is said where the platform has no reason to tell."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """It will not claim its run."""

    reason: str


@dataclass(frozen=True, slots=True)
class _PutOff:
    """It cannot be looked at, or removed, or has not ended yet."""

    seconds: float
    away: bool
    """Its platform does not answer, so that it is not known how long something takes."""


_Verdict: TypeAlias = _Lost | _PutOff | Literal["keep", "removed", "forget"]


@dataclass(frozen=True, slots=True)
class _Watched:
    tenant: TenantId
    placed: Placed
    isolation: Isolation
    removed: bool
    age: float
    job_name: str | None
    state: _State
    ended_for: float
    look_at: datetime


class Watcher:
    """Watches as long as :meth:`run` runs, if no other worker does."""

    def __init__(
        self,
        database_url: str,
        pool: Pool,
        writer: EventWriter,
        platform_of: PlatformOf,
        *,
        threads: int,
        timeout_seconds: float,
        look_seconds: float = _LOOK_SECONDS,
        look_at_most_seconds: float = _LOOK_AT_MOST_SECONDS,
    ) -> None:
        """A process has ``timeout_seconds`` from its handing over to claim its run. Whoever watches
        has a connection of its own; who waits for the turn looks by one of the ``pool``."""
        self._url = database_url
        self._pool = pool
        self._writer = writer
        self._platform_of = platform_of
        self._threads = threads
        self._timeout = timeout_seconds
        self._look = look_seconds
        self._look_at_most = look_at_most_seconds

    async def run(self) -> None:
        """Watch, or wait for the turn to, until cancelled."""
        while True:
            pause = self._look
            try:
                if not await asyncio.to_thread(self._is_taken):
                    async with await async_connect(self._url) as connection:
                        await self._watch(connection)
            except TimeoutError:
                _log.warning("the platforms do not answer: another worker may watch")
                pause *= 2  # whoever waits for the turn is sooner
            except psycopg.Error as error:
                _log.warning("what runs elsewhere cannot be watched: %s", error)
            await asyncio.sleep(pause)

    def _is_taken(self) -> bool:
        with self._pool.connection() as connection:
            return is_taken(connection, _TURN)

    async def _watch(self, connection: AsyncConnection) -> None:
        """Watch as long as it is ours to. Raises TimeoutError where no platform answers."""
        await give_up_after(connection, self._look_at_most + self._look)
        threads = ThreadPoolExecutor(self._threads, thread_name_prefix="watching")
        try:
            while await has_turn(connection, _TURN):
                async with asyncio.timeout(self._look_at_most):
                    if not await self.look(connection, threads):
                        raise TimeoutError
                await asyncio.sleep(self._look)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    async def look(self, connection: AsyncConnection, threads: ThreadPoolExecutor) -> bool:
        """Look once at all that there is to look at. False where no platform answered."""
        loop = asyncio.get_running_loop()
        (look_at, run_id), full = _FIRST, True
        looks = answers = 0
        while full:
            given = {"look_at": look_at, "run_id": run_id, "limit": _AT_ONCE}
            cursor = await connection.execute(statements.WATCHED, given)
            found = [_watched(row) for row in await cursor.fetchall()]
            tended = [loop.run_in_executor(threads, self._tend, each) for each in found]
            for watched, tending in zip(found, tended, strict=True):
                verdict = await tending
                await self._note(connection, watched, verdict)
                looks += 1
                answers += not (isinstance(verdict, _PutOff) and verdict.away)
                look_at, run_id = watched.look_at, watched.placed.run_id
            full = len(found) == _AT_ONCE
        return answers > 0 or looks == 0

    def _tend(self, watched: _Watched) -> _Verdict:
        """Look at one, and remove it where it is over. Blocks. Never raises."""
        try:
            return self._tend_by(self._platform_of(watched.isolation), watched)
        except NoSuchPlatform as error:  # any more, so there is nothing to ask, or to remove by
            _log.warning("run %s is watched no more: %s", watched.placed.run_id, error)
            return _Lost(error.message) if watched.state == "placed" else "forget"
        except Exception as error:
            return self._put_off(watched, error)

    def _put_off(self, watched: _Watched, error: Exception) -> _Verdict:
        told = isinstance(error, PlacementFailed)
        _log.warning(
            "run %s cannot be watched: %s", watched.placed.run_id, error, exc_info=not told
        )
        if isinstance(error, AWAY) or (isinstance(error, PlacementFailed) and error.passing):
            return _PutOff(_AWAY_SECONDS, away=True)
        if watched.state == "placed" and watched.age >= self._timeout:
            return _Lost(f"{type(error).__name__}: {error}")
        return _PutOff(_REFUSED_SECONDS, away=False)

    def _tend_by(self, platform: Platform, watched: _Watched) -> _Verdict:
        if watched.state == "placed":
            if watched.age < _FIRST_LOOK_SECONDS:
                return "keep"
            return self._judge(platform.health(watched.placed), watched.age)
        if watched.removed:
            return "forget"
        if watched.state == "ended":
            is_there = platform.health(watched.placed).there
            if is_there and watched.ended_for < _LEAVE_SECONDS:
                return "keep"
            if not is_there and platform.lingers:
                return "forget"
        return self._remove(platform, watched)

    def _remove(self, platform: Platform, watched: _Watched) -> _Verdict:
        if not removed(platform, watched.placed):
            return _PutOff(_ENDING_SECONDS, away=False)
        return "removed" if watched.state == "left" else "forget"

    def _judge(self, health: Health, age: float) -> _Verdict:
        reason = health.reason or _UNTOLD[health.condition]
        if not health.there:
            return _Lost(reason)
        return "keep" if age < self._timeout else _Lost(f"{reason} (after {age:.0f} s)")

    async def _note(
        self, connection: AsyncConnection, watched: _Watched, verdict: _Verdict
    ) -> None:
        placed = watched.placed
        given = {
            "tenant": watched.tenant, "run_id": placed.run_id, "attempt": placed.attempt,
        }  # fmt: skip
        match verdict:
            case "keep":
                pass
            case "removed":
                await connection.execute(statements.REMOVED, given)
            case "forget":
                await connection.execute(statements.FORGET, given)
            case _PutOff(seconds, away):
                later = {"seconds": seconds, "away": away}
                await connection.execute(statements.PUT_OFF, {**given, **later})
            case _Lost(reason):
                taken = await connection.execute(statements.TAKE_BACK, {**given, "reason": reason})
                if await taken.fetchone() is not None:  # else it has just been claimed
                    await asyncio.to_thread(self._tell, watched, reason)

    def _tell(self, watched: _Watched, reason: str) -> None:
        run_id, attempt = watched.placed.run_id, watched.placed.attempt
        _log.warning("attempt %d at run %s did not claim it: %s", attempt, run_id, reason)
        message = f"Attempt {attempt} did not begin, and the run is placed again: {reason}."
        record = run_record(run_id, watched.job_name or "", DagsterEventType.ENGINE_EVENT, message)
        self._writer.append(record)
        self._writer.flush(run_id)


def _watched(row: DictRow) -> _Watched:
    return _Watched(
        tenant=row["tenant"],
        placed=Placed(RunId(row["run_id"]), row["attempt"], row["location"]),
        isolation=row["isolation"],
        removed=row["removed"],
        age=row["age"],
        job_name=row["job_name"],
        state=row["state"],
        ended_for=row["ended_for"] or 0.0,
        look_at=row["look_at"],
    )
