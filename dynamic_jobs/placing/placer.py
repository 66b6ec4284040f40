"""A worker places a run that it has claimed, and hands it over to what was started for it.

The worker holds the run's lease all the while, so a run whose worker dies here is claimed and
placed again: what had been started already finds nothing to claim, or is removed before.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import psycopg
from dagster import DagsterEventType
from psycopg.rows import DictRow

from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.placing import statements
from dynamic_jobs.placing.base import (
    AWAY,
    Placed,
    PlacementFailed,
    PlacementRequest,
    Platform,
    removed,
)
from dynamic_jobs.queueing.claiming import Claim
from dynamic_jobs.queueing.promotion import SOLO_START_SECONDS
from dynamic_jobs.queueing.strikes import SOLO_STRIKES
from dynamic_jobs.storage import EventWriter, Lease, LeaseLost
from dynamic_jobs.workers.solo_runs import SoloRuns
from foundation.database import Pool
from foundation.errors import Fault, Unavailable
from foundation.ids import GraphId, GraphVersionId
from foundation.recent import Recent
from graph_defs.placement import Isolation, Placement
from graph_defs.placement_policy import PlacementPolicy, breaches
from graph_defs.stored_versions import load_version

_log = logging.getLogger(__name__)

_KEPT: Final = 1_024
_LONGEST_DELAY_SECONDS: Final = 60.0
_MOST_UNEXPLAINED: Final = 6
"""So often a platform may fail in a way that it does not tell of, until a placing succeeds."""

PlatformOf: TypeAlias = Callable[[Isolation], Platform]
"""May block, and raise PlacementFailed."""


class Unplaceable(Exception):
    """The run cannot be placed, and fails; ``error`` is what its owner is told."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


@dataclass(frozen=True, slots=True)
class Later:
    """The run goes back on the queue, for so many seconds."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Graph:
    graph_id: GraphId
    name: str
    placement: Placement


@dataclass(frozen=True, slots=True)
class _Before:
    """What there was before this attempt: the policy and the last attempt, if there was one."""

    policy: PlacementPolicy
    isolations: tuple[Isolation, ...]
    last: Placed | None
    last_isolation: Isolation
    removed: bool
    failures: int
    unexplained: int


class Placer:
    """Places runs for one worker, several at once. It is called on the worker's event loop."""

    def __init__(
        self,
        pool: Pool,
        writer: EventWriter,
        platform_of: PlatformOf,
        solo: SoloRuns,
        threads: int,
    ) -> None:
        self._pool = pool
        self._writer = writer
        self._platform_of = platform_of
        self._solo = solo
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="placing")
        self._graphs = Recent[GraphVersionId, _Graph](_KEPT)

    def close(self) -> None:
        """Release the threads, without waiting for a platform that does not answer."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def place(self, claimed: Claim) -> Later | None:
        """Place the run and hand it over; or say that it goes back on the queue.

        Raises:
            Unplaceable: it is to fail.
        """
        graph = self._graphs.get(claimed.graph_version_id)
        if graph is None:
            graph = await self._in_thread(self._load, claimed)
            self._graphs.keep(claimed.graph_version_id, graph)
        if claimed.isolation == "process":
            return await self._to_process(claimed, graph)
        return await self._in_thread(self._place, claimed, graph)

    async def last_words(self, claimed: Claim) -> str:
        """What the platform says of the last attempt; nothing where it does not know."""
        return await self._in_thread(self._last_words, claimed.lease)

    async def _in_thread(self, work: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)

    async def _to_process(self, claimed: Claim, graph: _Graph) -> Later | None:
        """A process of its own, here if there is room, else of the worker that has room first."""
        await self._in_thread(self._check, claimed, graph)
        run_id, handed = claimed.lease.run_id, False
        struck = claimed.strikes >= SOLO_STRIKES
        here = self._solo.reserve(run_id, struck=struck)
        try:
            delay = SOLO_START_SECONDS if here else 0
            handed = await self._in_thread(self._hand_over, claimed, "solo", delay)
        finally:
            if here and not handed:
                self._solo.release(run_id)
        if here and handed:
            self._solo.start(run_id, struck=struck)
        return None if handed else Later()

    def _load(self, claimed: Claim) -> _Graph:
        with self._pool.connection() as connection:
            version = load_version(connection, claimed.lease.tenant, claimed.graph_version_id)
        return _Graph(version.graph_id, version.name, Placement.of(version.document))

    def _check(self, claimed: Claim, graph: _Graph) -> _Before:
        """What there was before. Raises Unplaceable where the run may not be placed."""
        before = self._before(claimed.lease)
        if claimed.lost and graph.placement.on_lost == "fail":
            raise Unplaceable(run_lost(self._last_words(claimed.lease)))
        if faults := breaches(graph.placement, before.isolations, before.policy):
            raise Unplaceable(_refused(faults[0]))
        return before

    def _place(self, claimed: Claim, graph: _Graph) -> Later | None:
        before = self._check(claimed, graph)
        request = PlacementRequest(
            run=claimed.dagster_run(),
            tenant=claimed.lease.tenant,
            graph_id=graph.graph_id,
            graph_name=graph.name,
            attempt=1 if before.last is None else before.last.attempt + 1,
            resumes=claimed.resumed,
            placement=graph.placement,
            policy=before.policy,
        )
        try:
            if not self._start(claimed, before, request):
                return Later()
        except PlacementFailed as error:
            if not error.passing:
                raise Unplaceable(_told(error)) from error
            return self._failed(claimed, before, str(error))
        except (psycopg.Error, LeaseLost, Unavailable):
            raise
        except AWAY as error:
            return self._failed(claimed, before, f"{type(error).__name__}: {error}")
        except Exception as error:  # of what the platform is made of
            _log.exception("run %s cannot be placed", request.run_id)
            message = f"{claimed.isolation}: {type(error).__name__}: {error}"
            if before.unexplained + 1 >= _MOST_UNEXPLAINED:
                raise Unplaceable(_told(PlacementFailed(message))) from error
            return self._failed(claimed, before, message, unexplained=1)
        if self._hand_over(claimed, "placed", 0):
            return None
        self._remove_own(claimed, request)
        return Later()

    def _start(self, claimed: Claim, before: _Before, request: PlacementRequest) -> bool:
        """Whether it was started: its owner may want something else of the run meanwhile."""
        self._clear(claimed, before)
        platform = self._platform_of(claimed.isolation)
        begun = self._begin(claimed.lease, request.attempt, platform.locate(request))
        if begun:
            platform.place(request)
        return begun

    def _before(self, lease: Lease) -> _Before:
        asked = {"tenant": lease.tenant, "run_id": lease.run_id}
        with self._pool.connection() as connection:
            row: DictRow | None = connection.execute(statements.BEFORE, asked).fetchone()
        assert row is not None, "a tenant with a graph has a policy"
        last = None
        if row["attempt"] is not None:
            last = Placed(lease.run_id, row["attempt"], row["location"])
        return _Before(
            policy=PlacementPolicy.model_validate(row["policy"]),
            isolations=tuple(row["isolations"]),
            last=last,
            last_isolation=row["isolation"],
            removed=bool(row["removed"]),
            failures=row["failures"] or 0,
            unexplained=row["unexplained"] or 0,
        )

    def _clear(self, claimed: Claim, before: _Before) -> None:
        """Remove what is left of the last attempt: it must not be there beside the next one."""
        last = before.last
        if last is None or before.removed:
            return
        platform = self._platform_of(before.last_isolation)
        if (claimed.lost or claimed.strikes) and not before.failures:  # else it was told
            reason = self._reason(before.last_isolation, last)
            self._tell(claimed, f"Attempt {last.attempt} was lost: {reason or 'nobody knows why'}.")
        try:
            gone = removed(platform, last)
        except Exception as error:  # which is no fault of the run
            told = f"attempt {last.attempt} cannot be removed: {error}"
            raise PlacementFailed(told, passing=True, run_id=last.run_id) from error
        if not gone:
            told = f"attempt {last.attempt} has not ended yet"
            raise PlacementFailed(told, passing=True, run_id=last.run_id)

    def _remove_own(self, claimed: Claim, request: PlacementRequest) -> None:
        """Remove what was started for a run that is no longer ours. Whoever has the run by now may
        have removed this attempt before there was something to remove."""
        try:
            platform = self._platform_of(claimed.isolation)
            platform.remove(Placed(request.run_id, request.attempt, platform.locate(request)))
        except Exception as error:  # it finds nothing to claim, and ends
            _log.warning(
                "attempt %d at run %s stays behind: %s", request.attempt, request.run_id, error
            )

    def _begin(self, lease: Lease, attempt: int, location: str) -> bool:
        given = {**_values(lease), "attempt": attempt, "location": location}
        with self._pool.connection() as connection:
            return connection.execute(statements.BEGIN, given).fetchone() is not None

    def _hand_over(self, claimed: Claim, state: str, delay: float) -> bool:
        given = {**_values(claimed.lease), "state": state, "delay": delay, "waited": claimed.waited}
        with self._pool.connection() as connection:
            return connection.execute(statements.HAND_OVER, given).fetchone() is not None

    def _failed(
        self, claimed: Claim, before: _Before, reason: str, *, unexplained: int = 0
    ) -> Later:
        _log.warning("run %s cannot be placed yet: %s", claimed.lease.run_id, reason)
        failures = before.failures + 1
        if failures.bit_count() == 1:  # the more seldom, the longer it lasts
            self._tell(claimed, f"The run could not be placed yet: {reason}")
        given = {**_values(claimed.lease), "reason": reason, "unexplained": unexplained}
        with self._pool.connection() as connection:
            connection.execute(statements.FAILED, given)
        return Later(min(2.0 ** min(failures, 10), _LONGEST_DELAY_SECONDS))

    def _last_words(self, lease: Lease) -> str:
        asked = {"tenant": lease.tenant, "run_id": lease.run_id}
        with self._pool.connection() as connection:
            row = connection.execute(statements.REASON, asked).fetchone()
        if row is None or row["removed"]:
            return "" if row is None else row["reason"] or ""
        placed = Placed(lease.run_id, row["attempt"], row["location"])
        return self._reason(cast("Isolation", row["isolation"]), placed)

    def _reason(self, isolation: Isolation, placed: Placed) -> str:
        """Why it was lost, in the platform's words; the run's end does not depend on it."""
        try:
            return self._platform_of(isolation).health(placed).reason
        except Exception as error:
            _log.warning("it cannot be told how run %s was lost: %s", placed.run_id, error)
            return ""

    def _tell(self, claimed: Claim, message: str) -> None:
        """For the run's log in the Dagster UI; stored before the run is handed over."""
        record = run_record(
            claimed.lease.run_id, claimed.job_name, DagsterEventType.ENGINE_EVENT, message
        )
        self._writer.append(record, lease=claimed.lease)
        self._writer.flush(claimed.lease.run_id)


def run_lost(reason: str = "") -> dict[str, Any]:
    """The error of a run that was lost while it was under way, and whose graph wants it to fail."""
    return {
        "code": "run_lost",
        "message": f"what executed the run was lost{reason and ': '}{reason}",
        "hint": "The graph says `on_lost: fail`. Look at what it had done, and run it again.",
    }


def _told(error: PlacementFailed) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "hint": error.hint, **error.ids}


def _refused(fault: Fault) -> dict[str, Any]:
    return {
        "code": fault.code,
        "message": fault.message,
        "hint": fault.hint,
        "pointer": fault.pointer,
    }


def _values(lease: Lease) -> dict[str, Any]:
    return {"tenant": lease.tenant, "run_id": lease.run_id, "epoch": lease.epoch}
