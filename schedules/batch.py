"""What becomes of the timers of one transaction."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from psycopg.rows import DictRow

from dynamic_jobs.creating.making import is_passing
from dynamic_jobs.creating.many import Outcome, Wanted
from dynamic_jobs.creating.refusals import NotYet, TakesLong
from foundation.ids import GraphId, RunId, TenantId, TriggerId
from foundation.text import storable
from graph_defs.expressions import NotQuick
from graph_defs.recurrence import due_text
from schedules.firing import Firing, NoParams, Prepared, Timer
from schedules.turns import MISSED_AFTER, Turn, take_turn

TimerLane: TypeAlias = Literal["quick", "behind", "costly"]
"""Timers that hold each other up at most: those on time, those that have due times to catch up
with, and those whose runs take long to make."""

_AGAIN: Final = timedelta(seconds=10)
"""After this, what a quota or the like kept from becoming a run is tried again."""
_UNREADABLE: Final = timedelta(seconds=60)
"""After this, a timer that we cannot read is tried again: another release may read it."""
_MAX_FAULT: Final = 2_000


@dataclass(slots=True)
class Due:
    """A timer that was claimed, and what becomes of it."""

    timer: Timer | None
    """None where the trigger is gone."""
    trigger_id: TriggerId
    tenant: TenantId
    due_at: datetime
    fire_at: datetime
    lane: TimerLane
    prepared: Prepared | None = None
    turn: Turn | None = None
    again: tuple[datetime, datetime] | None = None
    """The due time that it stays at, and when that has its turn."""
    fault: str = ""

    @classmethod
    def of(cls, row: DictRow, lane: TimerLane) -> "Due":
        tenant, trigger_id = TenantId(row["tenant"]), TriggerId(row["trigger_id"])
        timer = None
        if row["config"] is not None:
            graph_id = GraphId(row["graph_id"])
            timer = Timer(tenant, trigger_id, graph_id, row["name"], row["config"])
        return cls(timer, trigger_id, tenant, row["due_at"], row["fire_at"], lane)

    def postpone(self, due_at: datetime, fire_at: datetime) -> None:
        """This due time, and those after it, have their turn at ``fire_at``."""
        if self.again is None or due_at < self.again[0]:
            self.again = due_at, fire_at

    def hand_over(self, due_at: datetime, lane: TimerLane) -> None:
        """This due time, and those after it, have their turn in another lane, as late as they
        are."""
        self.lane = lane
        start = self.fire_at if due_at == self.due_at else self.start_of(due_at)
        self.postpone(due_at, start)

    def start_of(self, due_at: datetime) -> datetime:
        """When the run of a due time is to start, going by the timer alone."""
        assert self.prepared is not None
        return self.prepared.recurrence.fire_at(UUID(self.trigger_id), due_at)

    def failed(self, due_at: datetime, reason: str) -> None:
        self.fault = storable(f"{due_text(due_at)}: {reason}", _MAX_FAULT)


@dataclass(slots=True)
class Batch:
    """Timers that have come due by ``now``, and the runs that they want."""

    now: datetime
    handled: list[Due] = field(default_factory=list[Due])
    wanted: list[Wanted] = field(default_factory=list[Wanted])
    _of: list[tuple[Due, datetime]] = field(default_factory=list[tuple[Due, datetime]])

    async def decide(
        self, claimed: Sequence[Due], firing: Firing, tags: dict[str, str], *, room: int, each: int
    ) -> None:
        """Let the timers have their turns, of at most ``each`` due times.

        Once ``room`` runs are wanted, the others stay as they are.
        """
        for due in claimed:
            if len(self.wanted) >= room:
                break
            self.handled.append(due)
            if due.timer is None:
                continue
            try:
                due.prepared = firing.prepare(due.timer.config)
            except ValueError as error:
                due.failed(due.due_at, str(error))
                due.postpone(due.due_at, self.now + _UNREADABLE)
                continue
            if due.lane == "quick" and self._catches_up(due, due.prepared):
                due.hand_over(due.due_at, "behind")
                continue
            await self._take_turn(due, due.timer, due.prepared, firing, tags, each)

    def _catches_up(self, due: Due, prepared: Prepared) -> bool:
        missed = self.now - due.fire_at > MISSED_AFTER
        return missed and prepared.trigger.catch_up != "none"

    async def _take_turn(
        self,
        due: Due,
        timer: Timer,
        prepared: Prepared,
        firing: Firing,
        tags: dict[str, str],
        most: int,
    ) -> None:
        due.turn = take_turn(
            prepared.recurrence,
            prepared.trigger.catch_up,
            due.trigger_id,
            due.due_at,
            due.fire_at,
            self.now,
            most,
        )
        for due_at in due.turn.fires:
            try:
                if due.lane == "costly":
                    asked = await asyncio.to_thread(firing.ask, timer, due_at, tags, quickly=False)
                else:
                    asked = firing.ask(timer, due_at, tags, quickly=True)
            except NotQuick:
                due.hand_over(due_at, "costly")
                return
            except NoParams as error:
                due.failed(due_at, error.message)
            else:
                self.wanted.append(asked)
                self._of.append((due, due_at))

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """What came of the runs that are wanted."""
        for (due, due_at), outcome in zip(self._of, outcomes, strict=True):
            match outcome:
                case str():
                    pass
                case TakesLong():
                    due.hand_over(due_at, "costly")
                case NotYet():
                    due.postpone(due_at, self.now)
                case _ if is_passing(outcome):
                    if due.lane == "quick":
                        due.lane = "behind"
                    due.postpone(due_at, self.now + _AGAIN)
                case _:
                    due.failed(due_at, str(outcome))

    def moved(self) -> Iterator[dict[str, Any]]:
        """The values of the rows that wait for their next due time."""
        for due in self.handled:
            lane = due.lane
            if due.again is not None:
                due_at, fire_at = due.again
            elif due.prepared is not None and due.turn is not None:
                following = due.prepared.recurrence.next(due.turn.until)
                if following is None:
                    continue
                due_at, fire_at = following, due.start_of(following)
                if lane != "costly":
                    lane = "behind" if fire_at <= self.now else "quick"
                # One that is still behind goes to the end, so that others have their turns.
                fire_at = max(fire_at, self.now)
            else:  # its trigger is gone
                continue
            yield {
                "trigger_id": due.trigger_id,
                "tenant": due.tenant,
                "due_at": due_at,
                "fire_at": fire_at,
                "lane": lane,
            }

    def faults(self) -> list[dict[str, Any]]:
        """What the owners of triggers are to know, as values of :data:`statements.FAULT`."""
        return [
            {
                "tenant": due.tenant,
                "trigger_id": due.trigger_id,
                "fault": due.fault,
                "at": self.now,
            }
            for due in sorted(self.handled, key=lambda due: due.trigger_id)
            if due.fault and due.timer is not None
        ]

    def others(self) -> tuple[int, str]:
        """How many timers started no run, or not for all that was due; and why one of them did."""
        faults = [due.fault for due in self.handled if due.fault]
        late = sum(
            due.again is not None and due.again[1] > self.now and not due.fault
            for due in self.handled
        )
        missed = sum(due.turn is not None and due.turn.left_out for due in self.handled)
        if faults:
            reason = faults[0]
        elif late:
            reason = "they are tried again in a few seconds"
        else:
            reason = "they were late, and `catch_up` leaves due times out"
        return len(faults) + late + missed, reason


def run_ids(outcomes: Sequence[Outcome]) -> list[RunId]:
    """The runs among them."""
    return [each for each in outcomes if isinstance(each, str)]
