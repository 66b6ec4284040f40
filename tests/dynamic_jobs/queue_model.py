"""A model of the run queue: what it should do, in memory, for its tests to compare with."""

from dataclasses import dataclass, field
from typing import Final

from dynamic_jobs.queueing.claiming import Turn
from dynamic_jobs.queueing.strikes import MOST_STRIKES, SOLO_STRIKES
from dynamic_jobs.storage import Lease
from foundation.ids import RunId, TenantId

WEIGHTS: Final = {"a": 1, "b": 2, "c": 1}
MAX_RUNNING: Final = {"a": None, "b": 2, "c": 1}
SLOTS: Final = {"x": 1, "y": 2}


@dataclass
class Run:
    """What the model knows of a run."""

    run_id: RunId
    tenant: TenantId
    priority: int
    age: int
    slot: str | None
    future: bool
    state: str = ""
    """Where it is: a state of the queue, ``held``, ``paused`` or ``ended``."""
    order: float = 0.0
    """Rises as ``not_before`` does."""
    status: str = "queued"
    started: bool = False
    admitted: bool = False
    pausing: bool = False
    epoch: int = 0
    worker: str | None = None
    strikes: int = 0
    nodes: int = 0
    nodes_before: int = 0
    places: set[str] = field(default_factory=set[str])
    leases: list[Lease] = field(default_factory=list[Lease])

    @property
    def rank(self) -> tuple[int, float, str]:
        return -self.priority, self.order, self.run_id

    @property
    def limited(self) -> bool:
        return MAX_RUNNING[self.tenant] is not None

    @property
    def waits_for(self) -> str:
        return "blocked" if self.slot else "limited" if self.limited else "ready"

    @property
    def for_workers(self) -> str:
        alone = SOLO_STRIKES <= self.strikes < MOST_STRIKES and self.status != "cancelling"
        return "solo" if alone else "ready"

    def queue(self) -> None:
        self.state = "delayed" if self.future else self.waits_for
        self.order = self.age


class Model:
    """All runs. Its methods are what becomes of them, not who asked for it."""

    def __init__(self) -> None:
        self.runs: dict[RunId, Run] = {}
        self.clock = 1_000

    def those(self, *states: str) -> list[Run]:
        return [run for run in self.runs.values() if run.state in states]

    def next_in_turn(self, turn: Turn, limit: int) -> tuple[dict[str, set[str]], Turn]:
        """Whose runs a claim takes, in order, and where the next one begins."""
        ready: dict[TenantId, list[Run]] = {}
        for run in sorted(self.those("ready"), key=lambda run: run.rank):
            ready.setdefault(run.tenant, []).append(run)
        weights: dict[str, int] = dict(WEIGHTS)
        ring = sorted(ready, key=lambda tenant: (tenant < turn.tenant, tenant))
        if turn.tenant in ready:
            if turn.left:
                weights[turn.tenant] = turn.left
            else:
                ring.append(ring.pop(0))
        ring = ring[:limit]
        rounds = max(1, limit // sum(weights[tenant] for tenant in ring))
        expected: dict[str, set[str]] = {}
        for tenant in ring:
            due = weights[tenant] * rounds
            share = min(due, limit)
            if share:
                limit -= share
                expected[tenant] = {run.run_id for run in ready[tenant][:share]}
                turn = Turn(tenant, due - share)
        return expected, turn

    def admit(self, tenant: str) -> None:
        """First to slots, each in order; then to the tenant."""
        for slot, limit in SLOTS.items():
            waiting = [run for run in self.those("blocked") if run.slot == slot]
            self._let_in(tenant, waiting, slot, limit)
        if (limit := MAX_RUNNING[tenant]) is not None:
            self._let_in(tenant, self.those("limited"), "", limit)

    def _let_in(self, tenant: str, waiting: list[Run], slot: str, limit: int) -> None:
        of_it = [run for run in waiting if run.tenant == tenant]
        holders = [r for r in self.runs.values() if r.tenant == tenant and slot in r.places]
        for run in sorted(of_it, key=lambda run: run.rank)[: max(0, limit - len(holders))]:
            run.places.add(slot)
            run.state = "limited" if slot and run.limited else "ready"

    def to_the_end(self, run: Run, state: str) -> None:
        """It is the last of those of its priority."""
        self.clock += 1
        run.state, run.order = state, self.clock

    def end(self, run: Run, status: str) -> None:
        run.state, run.status, run.worker, run.places = "ended", status, None, set()
        if run.limited or run.slot:
            self.admit(run.tenant)
