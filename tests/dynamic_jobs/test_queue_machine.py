"""The run queue against a model: Hypothesis drives the real statements on a real PostgreSQL.

The model is told what is asked for, and never looks at the database; after each step the database
must hold what the model holds.
"""

from datetime import timedelta
from typing import Any, Final, TypeAlias

import pytest
from dagster import DagsterEventType
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.pausing import pause, resume
from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.queueing.admission import admit
from dynamic_jobs.queueing.claiming import FIRST_TURN, Claim, claim, claim_solo
from dynamic_jobs.queueing.handing_back import hand_back
from dynamic_jobs.queueing.leases import beat, lost, suspects
from dynamic_jobs.queueing.promotion import promote
from dynamic_jobs.queueing.strikes import MOST_STRIKES
from dynamic_jobs.queueing.taking_over import take_over
from dynamic_jobs.storage import Lease, LeaseLost
from foundation.errors import Conflict
from foundation.ids import RunId, TenantId, new_id
from tests.dynamic_jobs.queue_model import MAX_RUNNING, SLOTS, WEIGHTS, Model, Run
from tests.dynamic_jobs.queue_services import LONG_AGO, PLACES, STANDING, Services, opened

Standing: TypeAlias = tuple[str, str, int, int, str | None]
"""Where a run is, its status, epoch and strikes, and its worker."""
LEASE_SECONDS: Final = 3_600.0
"""So long that no lease ends by itself while an example runs."""
NUMBER: Final = strategies.integers(0, 1)
PICK: Final = strategies.integers(0, 99)
"""Which of the runs that a rule is for."""
AGE: Final = strategies.integers(0, 3)
ON_QUEUE: Final = frozenset({"ready", "delayed", "blocked", "limited", "solo"})


def some(*states: str) -> Any:
    """There is a run in one of these states."""
    return precondition(lambda machine: bool(machine.model.those(*states)))


class Queue(RuleBasedStateMachine):
    """Rules are what clients and workers do; the invariants are the queue's promises."""

    services: Services

    def __init__(self) -> None:
        super().__init__()
        self.real = self.services
        self.real.clear()
        self.model = Model()
        self.workers = [new_id(), new_id()]
        self.turns = [FIRST_TURN, FIRST_TURN]
        for number in (0, 1):
            self.heartbeat(number)

    def teardown(self) -> None:
        for run in self.model.runs.values():
            self._release(run)

    # What clients do.

    @rule(
        tenant=strategies.sampled_from(sorted(WEIGHTS)),
        priority=NUMBER,
        age=AGE,
        slot=strategies.none() | strategies.sampled_from(sorted(SLOTS)),
        future=strategies.booleans(),
        count=strategies.integers(1, 3),
    )
    def enqueue(
        self, tenant: str, priority: int, age: int, slot: str | None, future: bool, count: int
    ) -> None:
        made = [
            Run(RunId(new_id()), TenantId(tenant), priority, age, slot, future)
            for _ in range(count)
        ]
        assert self.real.loop.run(self.real.create(made)) == [None] * count
        for run in made:
            run.queue()
            self.model.runs[run.run_id] = run
        self.model.admit(tenant)

    @some("held", "paused", "ended", *ON_QUEUE)
    @rule(pick=PICK)
    def cancel_one(self, pick: int) -> None:
        run = self._picked(pick, "held", "paused", "ended", *ON_QUEUE)
        if run.state == "ended":
            with pytest.raises(Conflict):
                cancel(self.real.sync, self.real.api, run.tenant, run.run_id)
            return
        status = cancel(self.real.sync, self.real.api, run.tenant, run.run_id)
        run.pausing = False
        if run.state == "held":
            run.status = "cancelling"
        else:
            self._release(run)
            self.model.end(run, "cancelled")
        assert status == run.status

    @some("held", *ON_QUEUE)
    @rule(pick=PICK)
    def pause_one(self, pick: int) -> None:
        run = self._picked(pick, "held", *ON_QUEUE)
        if run.status == "cancelling":
            with pytest.raises(Conflict):
                pause(self.real.sync, self.real.api, run.tenant, run.run_id)
            return
        status = pause(self.real.sync, self.real.api, run.tenant, run.run_id)
        if run.state == "held":
            run.pausing = True
        else:
            run.state = run.status = "paused"
            run.pausing = False
            if not run.started:
                run.places = set()
                run.admitted = False
                self.model.admit(run.tenant)
        assert status == run.status

    @some("held", "paused")
    @rule(pick=PICK)
    def resume_one(self, pick: int) -> None:
        run = self._picked(pick, "held", "paused")
        if run.status == "cancelling":
            return
        resume(self.real.sync, self.real.api, run.tenant, run.run_id)
        run.pausing = False
        if run.state == "paused":
            run.status = "queued"
            if run.started or run.places:
                run.admitted = True
                self.model.to_the_end(run, run.for_workers)
            else:
                run.queue()
                self.model.admit(run.tenant)

    @some("delayed")
    @rule(pick=PICK, age=AGE)
    def its_time_comes(self, pick: int, age: int) -> None:
        run = self._picked(pick, "delayed")
        self.real.sync.execute(
            "UPDATE graphwright.run_queue SET not_before = %s WHERE run_id = %s",
            (LONG_AGO + timedelta(seconds=age), run.run_id),
        )
        run.order = age
        assert self.real.loop.run(promote(self.real.connection)).runs == 1
        if run.admitted:
            run.state = run.for_workers
        else:
            run.state = run.waits_for
            self.model.admit(run.tenant)

    # What workers do.

    @rule(number=NUMBER)
    def heartbeat(self, number: int) -> None:
        told = self.real.loop.run(beat(self.real.connection, self.workers[number], "host", 1, 1))
        assert not told.draining

    @some("ready")
    @rule(number=NUMBER, limit=strategies.integers(1, 6))
    def claim_some(self, number: int, limit: int) -> None:
        expected, turn = self.model.next_in_turn(self.turns[number], limit)
        claims = self.real.loop.run(
            claim(self.real.connection, self.workers[number], limit, self.turns[number])
        )
        found: dict[str, set[str]] = {}
        for claimed in claims:
            found.setdefault(claimed.lease.tenant, set()).add(claimed.lease.run_id)
        assert list(found.items()) == list(expected.items())
        assert claims[-1].turn == turn
        self.turns[number] = turn
        for claimed in claims:
            self._hold(number, claimed)

    @some(*ON_QUEUE)
    @rule(pick=PICK, number=NUMBER)
    def claim_alone(self, pick: int, number: int) -> None:
        run = self._picked(pick, *(["solo"] if self.model.those("solo") else ON_QUEUE))
        claims = self.real.loop.run(
            claim_solo(self.real.connection, self.workers[number], run.run_id)
        )
        assert [found.lease.run_id for found in claims] == [run.run_id] * (run.state == "solo")
        for claimed in claims:
            self._hold(number, claimed)

    @some("held")
    @rule(pick=PICK, nodes=NUMBER)
    def go_on(self, pick: int, nodes: int) -> None:
        """The worker writes: the run has started, or a node has completed."""
        run = self._picked(pick, "held")
        self._append(run, DagsterEventType.PIPELINE_START)
        if run.status != "cancelling":
            run.status, run.started = "running", True
        for _ in range(nodes):
            self.real.sync.execute(
                "INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)"
                " VALUES (%s, %s, %s, '1')",
                (run.tenant, run.run_id, f"n{run.nodes}"),
            )
            run.nodes += 1

    @some("held")
    @rule(pick=PICK, succeeds=strategies.booleans())
    def complete(self, pick: int, succeeds: bool) -> None:
        run = self._picked(pick, "held")
        kind = DagsterEventType.PIPELINE_SUCCESS if succeeds else DagsterEventType.PIPELINE_FAILURE
        self._append(run, kind)
        self._release(run)
        self.model.end(run, "succeeded" if succeeds else "failed")

    @some("held")
    @rule(pick=PICK, how=strategies.sampled_from(["queued", "waiting", "paused"]))
    def hand_one_back(self, pick: int, how: Any) -> None:
        run = self._picked(pick, "held")
        status = hand_back(
            self.real.sync, run.leases[-1], how, 3_600.0 if how == "waiting" else 0.0
        )
        self._leave(run)
        if run.status == "cancelling":
            self.model.to_the_end(run, "ready")
        elif run.pausing:
            run.state = run.status = "paused"
            run.pausing = False
        elif how == "waiting":
            run.status, run.state = "waiting", "delayed"
        else:  # nobody wants it paused any more
            run.status = "queued"
            self.model.to_the_end(run, run.for_workers)
        assert status == run.status

    @rule(number=NUMBER, forgotten=strategies.booleans())
    def die(self, number: int, forgotten: bool) -> None:
        """Its heart stops, and PostgreSQL may have forgotten it; what it held is taken over."""
        worker, other = self.workers[number], self.workers[1 - number]
        self.real.sync.execute(
            "DELETE FROM graphwright.workers WHERE worker = %s"
            if forgotten
            else "UPDATE graphwright.workers SET seen_at = '2020-01-01' WHERE worker = %s",
            (worker,),
        )
        held = [run for run in self.model.runs.values() if run.worker == worker]
        suspected = self.real.loop.run(suspects(self.real.connection, LEASE_SECONDS))
        assert other not in suspected
        assert (worker in suspected) == (bool(held) or not forgotten)
        stale = [each for each, unseen in suspected.items() if not unseen]
        unseen = [each for each, unseen in suspected.items() if unseen]
        taken = self.real.loop.run(take_over(self.real.connection, LEASE_SECONDS, stale, unseen))
        assert set(taken) == {run.run_id for run in held}
        self.model.clock += 1
        for run in held:
            run.strikes = 0 if run.nodes > run.nodes_before else run.strikes + 1
            run.nodes_before = run.nodes
            assert taken[run.run_id] == run.strikes
            self._leave(run)
            run.status = "queued" if run.status == "running" else run.status
            run.state, run.order = run.for_workers, self.model.clock
        self.workers[number] = new_id()
        self.turns[number] = FIRST_TURN
        self.heartbeat(number)

    @precondition(lambda self: bool(self.old_leases()))
    @rule(pick=PICK)
    def write_under_an_old_lease(self, pick: int) -> None:
        old = self.old_leases()
        run, epoch = old[pick % len(old)]
        stale, writer = Lease(run.tenant, run.run_id, epoch), self.real.writers[0]
        before = self._events(run)
        current = writer.lease(run.run_id)
        writer.hold(stale)
        writer.append(run_record(run.run_id, "job", DagsterEventType.PIPELINE_SUCCESS))
        with pytest.raises(LeaseLost):
            writer.flush(run.run_id)
        with pytest.raises(LeaseLost):
            writer.append(run_record(run.run_id, "job", DagsterEventType.PIPELINE_SUCCESS))
        writer.release(stale)
        if current is not None:
            writer.hold(current)
        assert self._events(run) == before
        assert hand_back(self.real.sync, stale) is None
        held = {run.run_id: (run.tenant, epoch)}
        assert self.real.loop.run(lost(self.real.connection, held)) == {run.run_id}

    def old_leases(self) -> list[tuple[Run, int]]:
        return [
            (run, lease.epoch)
            for run in self.model.runs.values()
            for lease in run.leases
            if lease.epoch != run.epoch
        ]

    @rule(tenant=strategies.sampled_from(sorted(WEIGHTS)))
    def look_round(self, tenant: str) -> None:
        """Workers admit what was missed: nothing was."""
        admit(self.real.sync, [tenant])

    # The model.

    def _picked(self, pick: int, *states: str) -> Run:
        found = self.model.those(*states)
        return found[pick % len(found)]

    def _hold(self, number: int, claimed: Claim) -> None:
        run, lease = self.model.runs[claimed.lease.run_id], claimed.lease
        run.epoch += 1
        assert (lease.tenant, lease.epoch) == (run.tenant, run.epoch)
        run.state, run.worker, run.admitted = "held", self.workers[number], True
        if run.started and run.status in {"queued", "waiting"}:
            run.status = "running"
        assert claimed.resumed == run.started
        assert claimed.cancelling == (run.status == "cancelling")
        assert claimed.given_up == (run.strikes >= MOST_STRIKES)
        run.leases.append(lease)
        self.real.writers[number].hold(lease)

    def _leave(self, run: Run) -> None:
        """Its worker has it no more."""
        self._release(run)
        run.epoch += 1
        run.worker = None

    def _release(self, run: Run) -> None:
        for lease in run.leases[-1:]:
            for writer in self.real.writers:
                writer.release(lease)

    # The database.

    def _append(self, run: Run, kind: DagsterEventType) -> None:
        assert run.worker is not None
        writer = self.real.writers[self.workers.index(run.worker)]
        writer.append(run_record(run.run_id, "job", kind), lease=run.leases[-1])
        writer.flush(run.run_id)

    def _events(self, run: Run) -> int:
        row = self.real.sync.execute(
            "SELECT count(*) AS n FROM event_logs WHERE run_id = %s", (run.run_id,)
        ).fetchone()
        assert row is not None
        return row["n"]

    @invariant()
    def each_run_is_in_one_place_and_nothing_is_lost(self) -> None:
        found: dict[str, Standing] = {}
        for row in self.real.sync.execute(STANDING):
            assert row["run_id"] not in found
            ended = "ended" if row["ended"] else "paused" if row["status"] == "paused" else "held"
            state = row["state"] or ended
            worker = None if state == "ended" else row["worker"]
            found[row["run_id"]] = state, row["status"], row["epoch"], row["strikes"], worker
        assert found == {
            run.run_id: (run.state, run.status, run.epoch, run.strikes, run.worker)
            for run in self.model.runs.values()
        }

    @invariant()
    def limits_hold(self) -> None:
        found: dict[tuple[str, str], set[str]] = {}
        for row in self.real.sync.execute(PLACES):
            found.setdefault((row["tenant"], row["slot"]), set()).add(row["run_id"])
        for (tenant, slot), holders in found.items():
            limit = SLOTS[slot] if slot else MAX_RUNNING[tenant]
            assert limit is not None
            assert len(holders) <= limit
        expected: dict[tuple[str, str], set[str]] = {}
        for run in self.model.runs.values():
            for slot in run.places:
                expected.setdefault((run.tenant, slot), set()).add(run.run_id)
        assert found == expected


def test_the_queue_does_what_the_model_does(database_url: str, redis_url: str) -> None:
    with opened(database_url, redis_url) as services:

        class Driven(Queue):
            pass

        Driven.services = services
        run_state_machine_as_test(
            Driven,
            settings=settings(
                max_examples=50,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
