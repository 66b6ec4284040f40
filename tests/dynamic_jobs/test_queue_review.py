"""Deaths and cuts between two steps: of a claim, a cancel, a pause; and locks that nobody frees."""

import asyncio
import signal
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

import node_types
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.pausing import pause, resume
from dynamic_jobs.queueing.admission import LOCK, admit
from dynamic_jobs.queueing.claiming import Claim
from dynamic_jobs.queueing.promotion import next_solo
from dynamic_jobs.storage import EventWriter, Lease
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from dynamic_jobs.workers.worker import Worker
from foundation.database import AsyncConnection, Connection, async_connect, connect
from foundation.ids import RunId, TenantId, new_id
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_worker_pool import pool


class CutOff(Worker):
    """Its connection breaks in the commit of its first claim, so that it gets no answer."""

    cut = False

    async def claim(self, connection: AsyncConnection, limit: int) -> list[Claim]:
        claims = await super().claim(connection, limit)
        if claims and not self.cut:
            self.cut = True
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return claims


def test_a_claim_whose_answer_was_lost_is_found(bench: Bench) -> None:
    """Its worker lives and keeps its lease: nobody would take the run over."""
    run_id = bench.start(bench.publish(graph({"one": value(1)})))
    worker = CutOff(bench.settings.model_copy(update={"lease_seconds": 1.0}), bench.limits)
    with ThreadPoolExecutor(1) as threads:
        bench.working = threads.submit(worker.run)
        try:
            assert bench.wait_for(run_id)["status"] == "succeeded"
        finally:
            worker.stop()
            bench.working.result()
    assert worker.cut
    assert bench.row(run_id)["epoch"] == 3  # claimed, given up, claimed


# What LOCK takes, held by somebody who never lets go.
HELD_FOR_EVER = """
SELECT pg_advisory_xact_lock(hashtextextended('graphwright/slots/' || %s, 0))
"""


def test_a_lock_that_nobody_frees_stops_no_worker(bench: Bench) -> None:
    """One tenant's runs wait for it; all else goes on, leases and delayed runs too."""
    limited = bench.publish(
        graph({"rest": {"type": "work.sleep", "with": {"seconds": 600}}}, concurrency={"limit": 1})
    )
    plain = bench.publish(graph({"one": value(1)}, name="plain"))
    with bench.worker(lease_seconds=1.0):
        bench.wait_for(bench.start(limited), "running", "waiting")
        bench.start(limited)  # it waits for a place, so that workers look round for one
        with connect(bench.settings.database_url) as stuck, stuck.transaction():
            stuck.execute(HELD_FOR_EVER, (TENANT,))
            later = datetime.now(UTC) + timedelta(seconds=0.5)
            for _ in range(3):
                delayed = bench.start(plain, not_before=later)
                assert bench.wait_for(delayed)["status"] == "succeeded"


def test_who_stands_still_in_a_transaction_loses_his_locks(bench: Bench) -> None:
    """Where a host is gone PostgreSQL would wait for hours, and so would all who want the lock."""
    timeout = "SELECT current_setting('idle_in_transaction_session_timeout') AS timeout"
    with bench.connection.transaction():
        bench.connection.execute(LOCK, {"tenants": [TENANT]})
        assert bench.connection.execute(timeout).fetchone() == {"timeout": "10s"}
    assert bench.connection.execute(timeout).fetchone() == {"timeout": "1min"}


class DiesBefore(EventWriter):
    """Its process is killed before it stores an event of this type."""

    fatal: str | None = None

    def append(self, *records: Record, lease: Lease | None = None) -> None:
        if any(record.event_type == self.fatal for record in records):
            raise Killed
        super().append(*records, lease=lease)


class Killed(Exception):
    """A process has died."""


@pytest.fixture
def dying(bench: Bench) -> Generator[DiesBefore]:
    writer = DiesBefore(bench.settings.database_url, Publisher(bench.settings.redis_url))
    yield writer
    writer.close()


def test_a_cancel_that_died_in_the_middle_is_completed(bench: Bench, dying: DiesBefore) -> None:
    run_id = bench.start(bench.publish(graph({"one": value(1)})))
    dying.fatal = "PIPELINE_CANCELED"
    with pytest.raises(Killed):
        cancel(bench.connection, dying, TENANT, run_id)
    assert bench.row(run_id)["status"] == "cancelling"
    bench.connection.execute("UPDATE graphwright.run_queue SET not_before = now()")
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "cancelled"


def test_a_run_that_has_ended_is_only_taken_off_the_queue(bench: Bench) -> None:
    """Whoever cancelled it died before it could do that."""
    version = bench.publish(graph({"one": value(1)}))
    ended, next_one = bench.start(version), bench.start(version)
    bench.connection.execute(
        "UPDATE graphwright.runs SET status = 'cancelled', ended_at = now() WHERE run_id = %s",
        (ended,),
    )
    with bench.worker():
        assert bench.wait_for(next_one)["status"] == "succeeded"
    assert bench.row(ended)["status"] == "cancelled"
    assert bench.row(ended)["epoch"] == 0
    assert bench.events(ended) == [("PIPELINE_ENQUEUED", None)]
    assert bench.connection.execute("SELECT FROM graphwright.run_queue").fetchall() == []


def test_a_wish_that_nobody_was_told_of_is_heeded(bench: Bench, dying: DiesBefore) -> None:
    """The API died after it had marked the run, and before it told the worker."""
    long = {"type": "work.sleep", "with": {"seconds": 600}}
    run_id = bench.start(bench.publish(graph({"rest": long})))
    dying.fatal = "PIPELINE_CANCELING"
    with bench.worker(leave_seconds=1_000.0):
        bench.wait_for(run_id, "running")
        with pytest.raises(Killed):
            cancel(bench.connection, dying, TENANT, run_id)
        assert bench.wait_for(run_id)["status"] == "cancelled"


MORE_TYPES = str(Path(__file__).parent / "node_types")
ALONE = """
import sys
import node_types
from dynamic_jobs.workers.solo import serve_one
from foundation.settings import Limits, Settings
node_types.__path__.append(sys.argv[2])
serve_one(Settings(), Limits(), sys.argv[1])
"""


@pytest.fixture
def more_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_types, "__path__", [*node_types.__path__, MORE_TYPES])


def test_a_process_for_one_run_ends_though_a_node_does_not(more_types: None, bench: Bench) -> None:
    """Its worker waits for it when it is drained."""
    run_id = bench.start(bench.publish(graph({"deaf": {"type": "tests.deaf"}})))
    bench.connection.execute("UPDATE graphwright.run_queue SET state = 'solo', admitted = true")
    given = {
        "GRAPHWRIGHT_STATE": str(bench.settings.state),
        "GRAPHWRIGHT_CANCEL_GRACE_SECONDS": "0",
    }
    with pool("-c", ALONE, run_id, MORE_TYPES, **given) as alone:
        while not bench.connection.execute(
            "SELECT FROM event_logs WHERE run_id = %s AND event LIKE '%%does not listen%%'",
            (run_id,),
        ).fetchall():
            assert alone.process.poll() is None
        alone.process.send_signal(signal.SIGTERM)
        assert alone.ended() == 0, alone.lines
    assert bench.row(run_id)["status"] == "queued"


WAITING_FOR_LOCKS = """
SELECT count(*) AS n FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def _until_waiting(connection: Connection, sessions: int) -> None:
    while connection.execute(WAITING_FOR_LOCKS).fetchone() != {"n": sessions}:
        pass


def test_a_run_that_is_paused_as_it_gets_its_place_leaves_it(
    bench: Bench, dying: DiesBefore
) -> None:
    """Else nobody else could start until it is resumed."""
    version = bench.publish(graph({"one": value(1)}, concurrency={"limit": 1}))
    first, second = bench.start(version), bench.start(version)
    bench.connection.execute(
        "UPDATE graphwright.runs SET status = 'succeeded', ended_at = now() WHERE run_id = %s",
        (first,),
    )
    url = bench.settings.database_url
    with connect(url) as late, connect(url) as admitting, ThreadPoolExecutor(2) as threads:
        with bench.connection.transaction(), connect(url) as looking:
            bench.connection.execute(
                "SELECT FROM graphwright.run_queue WHERE run_id = %s FOR UPDATE", (second,)
            )
            paused = threads.submit(pause, late, dying, TENANT, second)
            _until_waiting(looking, 1)
            admitted = threads.submit(admit, admitting, [TENANT])
            _until_waiting(looking, 2)
        assert paused.result() == "paused"
        admitted.result()
    held = "SELECT run_id::text FROM graphwright.run_slots"
    assert bench.connection.execute(held).fetchall() == []


def test_a_run_that_is_resumed_as_it_is_claimed(bench: Bench, dying: DiesBefore) -> None:
    """Its worker was lost before it could leave it, so it is on the queue; both take two locks."""
    run_id = bench.start(bench.publish(graph({"one": value(1)})))
    bench.connection.execute("UPDATE graphwright.runs SET pausing = true")
    url = bench.settings.database_url
    with connect(url) as asking, ThreadPoolExecutor(1) as threads:
        with bench.connection.transaction(), connect(url) as looking:  # as a claim does it
            bench.connection.execute("DELETE FROM graphwright.run_queue")
            resumed = threads.submit(resume, asking, dying, TENANT, run_id)
            _until_waiting(looking, 1)
            bench.connection.execute("UPDATE graphwright.runs SET worker = %s", (new_id(),))
        assert resumed.result() == "queued"
    assert bench.row(run_id)["pausing"] is False
    assert bench.connection.execute("SELECT FROM graphwright.run_queue").fetchall() == []


def test_tenants_take_turns_with_solo_runs(bench: Bench) -> None:
    """Else one with many of them would keep all others' waiting."""
    version = bench.publish(graph({"one": value(1)}))
    younger, older, other, struck = (bench.start(version) for _ in range(4))
    for run_id, tenant, minutes in (
        (younger, "aaa", 2), (older, "aaa", 3), (other, "zzz", 1), (struck, "zzz", 4),
    ):  # fmt: skip
        bench.connection.execute(
            "UPDATE graphwright.run_queue SET state = 'solo', tenant = %s,"
            " not_before = now() - %s * interval '1 minute' WHERE run_id = %s",
            (tenant, minutes, run_id),
        )
        bench.connection.execute(
            "UPDATE graphwright.runs SET tenant = %s, strikes = %s WHERE run_id = %s",
            (tenant, 3 if run_id == struck else 0, run_id),
        )

    async def started(take_struck: bool) -> list[tuple[RunId, bool] | None]:
        after, found = TenantId(""), list[tuple[RunId, bool] | None]()
        async with await async_connect(bench.settings.database_url) as connection:
            while found[-1:] != [None]:
                solo, after = await next_solo(connection, after, take_struck=take_struck)
                found.append(None if solo is None else (solo.run_id, solo.struck))
        return found

    turns = [(older, False), (other, False), (younger, False), None]
    assert asyncio.run(started(take_struck=False)) == turns
    assert asyncio.run(started(take_struck=True)) == [(struck, True), None]
