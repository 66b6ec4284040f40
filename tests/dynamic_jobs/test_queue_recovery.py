"""Workers that are killed, stopped, cut off or forgotten: what becomes of the runs they held.

Real processes; an outside server counts how often each node called it, and with which key.
"""

import os
import signal
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import pytest

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.creating.trigger import Trigger
from foundation.database import AsyncPool
from foundation.ids import RunId, new_id
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_worker_pool import Pool, starts, workers


class Outside(ThreadingHTTPServer):
    """Answers at once, but calls of ``/slow…`` only when it is opened."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.calls: Counter[tuple[str, str]] = Counter()
        self.waiting: SimpleQueue[str] = SimpleQueue()
        self.open = {"/slow": Event(), "/slow2": Event()}

    def node(self, path: str, *needs: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.server_port}{path}"
        return {
            "type": "http.request",
            "needs": list(needs),
            "with": {"url": url, "method": "POST"},
        }

    def calls_of(self, path: str) -> list[int]:
        """How often each key called it."""
        return [count for (called, _), count in self.calls.items() if called == path]

    def asked(self, path: str = "/slow") -> None:
        """Wait for the next call of it."""
        assert self.waiting.get(timeout=60) == path


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        outside = self.server
        assert isinstance(outside, Outside)
        outside.calls[self.path, self.headers["Idempotency-Key"]] += 1
        if self.path in outside.open:
            outside.waiting.put(self.path)
            outside.open[self.path].wait()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def outside() -> Generator[Outside]:
    with Outside() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        for gate in server.open.values():
            gate.set()
        server.shutdown()
        thread.join()


def short_leases(
    bench: Bench, processes: int = 2, seconds: int = 1
) -> AbstractContextManager[Pool]:
    return workers(bench, processes, GRAPHWRIGHT_LEASE_SECONDS=str(seconds))


# A busy machine may leave a process without a turn for longer than a lease, and what is lost with
# it counts. So each heartbeat holds for some time more, until `strike_dumb` takes that back.
LONG_BEATS = """
CREATE FUNCTION public.beating() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.seen_at := NEW.seen_at + interval '20 seconds';
    RETURN NEW;
END $$;
CREATE TRIGGER beating BEFORE INSERT OR UPDATE ON graphwright.workers
    FOR EACH ROW WHEN (NEW.seen_at = now()) EXECUTE FUNCTION public.beating();
"""


@pytest.fixture
def long_beats(bench: Bench) -> None:
    bench.connection.execute(LONG_BEATS)


def strike_dumb(bench: Bench, process: int, number: signal.Signals = signal.SIGKILL) -> None:
    """End or stop a process with ``long_beats``: its lease ends with what was its last one."""
    os.kill(process, number)
    bench.connection.execute(
        "UPDATE graphwright.workers SET seen_at = seen_at - interval '20 seconds' WHERE pid = %s",
        (process,),
    )


def chain(outside: Outside, **more: Any) -> dict[str, Any]:
    nodes = {
        "first": outside.node("/first"),
        "slow": outside.node("/slow", "first"),
        "last": value("${{ nodes.first.output.status }}", "slow"),
    }
    return graph(nodes, outputs={"last": "${{ nodes.last.output }}"}, **more)


def start(bench: Bench) -> RunId:
    """A run of the graph ``tested``, under its limits."""

    async def work(pool: AsyncPool) -> RunId:
        creator = RunCreator(
            pool, TenantPool(pool), bench.storage, Compiler(bench.runtime), bench.runtime
        )
        trigger = Trigger({}, {"type": "rest"}, "tester")
        return (await creator.start(TENANT, "tested", trigger)).run_id

    return bench.with_pool(work)


def holder(bench: Bench, run_id: RunId) -> int:
    """The process that holds the run."""
    row = bench.connection.execute(
        "SELECT w.pid FROM graphwright.workers w JOIN graphwright.runs r ON r.worker = w.worker"
        " WHERE r.run_id = %s",
        (run_id,),
    ).fetchone()
    assert row is not None
    return row["pid"]


def kill_holder(bench: Bench, run_id: RunId) -> None:
    strike_dumb(bench, holder(bench, run_id))


def queue_state(bench: Bench, run_id: RunId) -> str | None:
    row = bench.connection.execute(
        "SELECT state FROM graphwright.run_queue WHERE run_id = %s", (run_id,)
    ).fetchone()
    return None if row is None else row["state"]


@pytest.mark.usefixtures("long_beats")
def test_another_worker_goes_on_with_what_a_killed_one_held(bench: Bench, outside: Outside) -> None:
    """What had completed is not run again; the place in its slot stays the run's own."""
    bench.publish(chain(outside, concurrency={"limit": 1}))
    plain = bench.publish(graph({"one": value(1)}, name="plain"))
    with short_leases(bench):
        run_id, waiting = (start(bench) for _ in range(2))
        outside.asked()
        killed = holder(bench, run_id)
        strike_dumb(bench, killed)
        outside.asked()
        assert holder(bench, run_id) != killed
        assert queue_state(bench, waiting) == "blocked"
        assert bench.wait_for(bench.start(plain))["status"] == "succeeded"
        outside.open["/slow"].set()
        row = bench.wait_for(run_id)
        assert row["status"] == "succeeded", row["error"]
        assert row["outputs"] == {"last": 200}
        assert bench.wait_for(waiting)["status"] == "succeeded"
    assert outside.calls_of("/first") == [1, 1], "what had completed ran again"
    assert sorted(outside.calls_of("/slow")) == [1, 2], "the interrupted node got another key"
    assert starts(bench, run_id, "first") == 1
    assert bench.events(run_id).count(("PIPELINE_SUCCESS", None)) == 1


@pytest.mark.usefixtures("long_beats")
def test_a_worker_that_stood_still_writes_nothing_more(bench: Bench, outside: Outside) -> None:
    bench.publish(chain(outside))
    with short_leases(bench) as pool:
        run_id = start(bench)
        outside.asked()
        stopped = holder(bench, run_id)
        strike_dumb(bench, stopped, signal.SIGSTOP)
        outside.asked()
        assert holder(bench, run_id) != stopped
        outside.open["/slow"].set()  # the answer awaits the stopped one too
        assert bench.wait_for(run_id)["status"] == "succeeded"
        events = bench.events(run_id)
        os.kill(stopped, signal.SIGCONT)
        pool.until(rf"\[{stopped}\].*run {run_id} was taken over by another worker")
        pool.process.terminate()
        assert pool.ended() == 0, pool.lines
    assert bench.events(run_id) == events
    assert bench.row(run_id)["epoch"] == 3  # claimed, lost, claimed
    assert outside.calls_of("/slow") == [2]


@pytest.mark.usefixtures("long_beats")
def test_progress_clears_strikes(bench: Bench, outside: Outside) -> None:
    nodes = {"slow": outside.node("/slow"), "slow2": outside.node("/slow2", "slow")}
    bench.publish(graph(nodes))
    with short_leases(bench, processes=4):
        run_id = start(bench)
        for strikes in (0, 1):
            outside.asked()
            assert bench.row(run_id)["strikes"] == strikes
            kill_holder(bench, run_id)
        outside.asked()
        assert bench.row(run_id)["strikes"] == 2
        outside.open["/slow"].set()
        outside.asked("/slow2")
        kill_holder(bench, run_id)
        outside.asked("/slow2")
        assert bench.row(run_id)["strikes"] == 0
        outside.open["/slow2"].set()
        assert bench.wait_for(run_id)["status"] == "succeeded"
    assert outside.calls_of("/slow") == [3]


@pytest.mark.usefixtures("long_beats")
def test_after_three_strikes_a_run_has_a_process_of_its_own(bench: Bench, outside: Outside) -> None:
    """Once that is lost three times too, the run is failed, and says where."""
    nodes = {"slow": outside.node("/slow"), "after": value(1, "slow")}
    bench.publish(graph(nodes))
    with short_leases(bench) as pool:
        run_id, other = start(bench), start(bench)
        outside.asked()
        outside.asked()
        _strike(bench, run_id, 2)
        kill_holder(bench, run_id)
        pool.until(f"run {run_id} gets a process of its own")
        while (alone := holder_of(bench, run_id)) is None:
            pass
        assert alone in {child.pid for child in pool.children}
        assert alone != holder_of(bench, other)
        held = bench.connection.execute(
            "SELECT run_id::text FROM graphwright.runs"
            " WHERE worker = (SELECT worker FROM graphwright.workers WHERE pid = %s)",
            (alone,),
        ).fetchall()
        assert held == [{"run_id": run_id}]
        _strike(bench, run_id, 5)
        kill_holder(bench, run_id)
        row = bench.wait_for(run_id)
        assert row["status"] == "failed"
        assert row["error"]["code"] == "worker_lost"
        assert row["error"]["nodes"] == ["slow"]
        assert "slow" in row["error"]["message"]
        outside.open["/slow"].set()
        assert bench.wait_for(other)["status"] == "succeeded"
    assert bench.events(run_id)[-1] == ("PIPELINE_FAILURE", None)


@pytest.mark.usefixtures("long_beats")
def test_a_draining_worker_starts_no_process_for_a_run(bench: Bench, outside: Outside) -> None:
    """Not even when the one that it had started has ended: that one may finish."""
    bench.publish(chain(outside))
    alone, next_alone = start(bench), start(bench)
    usual = bench.start(bench.publish(graph({"slow": outside.node("/slow2")}, name="usual")))
    for run_id in (alone, next_alone):
        _strike(bench, run_id, 3)
        bench.connection.execute(
            "UPDATE graphwright.run_queue SET state = 'solo', admitted = true WHERE run_id = %s",
            (run_id,),
        )
    with short_leases(bench, processes=1) as pool:
        assert {outside.waiting.get(timeout=60) for _ in range(2)} == {"/slow", "/slow2"}
        pool.process.terminate()
        pool.until("stopping: 1 runs have 20")
        outside.open["/slow"].set()
        first, second = (bench.row(run_id)["started_at"] for run_id in (alone, next_alone))
        begun, waits = (alone, next_alone) if second is None else (next_alone, alone)
        assert bench.wait_for(begun)["status"] == "succeeded"
        for _ in range(3):  # so often has it looked round meanwhile
            _look_round(bench)
        outside.open["/slow2"].set()
        assert pool.ended() == 0, pool.lines
    assert bench.row(usual)["status"] == "succeeded"
    assert sum("gets a process of its own" in line for line in pool.lines) == 1
    assert bench.row(waits)["status"] == "queued"
    assert first is None or second is None


def _look_round(bench: Bench) -> None:
    """Wait until a worker has found a run whose time has come."""
    version = bench.publish(graph({"one": value(1)}, name="delayed"))
    run_id = bench.start(version, not_before=datetime.now(UTC) + timedelta(days=1))
    bench.connection.execute(
        "UPDATE graphwright.run_queue SET not_before = now() WHERE run_id = %s", (run_id,)
    )
    while queue_state(bench, run_id) == "delayed":
        pass


def _strike(bench: Bench, run_id: RunId, strikes: int) -> None:
    """As if its workers had been lost so often; each takes its time."""
    bench.connection.execute(
        "UPDATE graphwright.runs SET strikes = %s WHERE run_id = %s", (strikes, run_id)
    )


def holder_of(bench: Bench, run_id: RunId) -> int | None:
    row = bench.connection.execute(
        "SELECT w.pid FROM graphwright.runs r LEFT JOIN graphwright.workers w"
        " ON w.worker = r.worker WHERE r.run_id = %s",
        (run_id,),
    ).fetchone()
    assert row is not None
    return row["pid"]


def test_workers_that_are_cut_off_or_forgotten_keep_what_they_hold(
    bench: Bench, outside: Outside
) -> None:
    """PostgreSQL empties the table of workers when it crashes: what is dead shows in time."""
    bench.publish(chain(outside))
    plain = bench.publish(graph({"one": value(1)}, name="plain"))
    # Longer, for who is forgotten has only that time to say that it lives.
    with short_leases(bench, seconds=3) as pool:
        run_id = start(bench)
        outside.asked()
        bench.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        pool.until("cannot be tended")
        assert bench.wait_for(bench.start(plain))["status"] == "succeeded"
        lost = _of_a_dead_worker(bench)
        bench.connection.execute("DELETE FROM graphwright.workers")
        assert bench.wait_for(lost)["status"] == "succeeded"  # so it was judged who is dead
        assert bench.row(lost)["strikes"] == 1
        assert bench.row(run_id)["status"] == "running"
        assert bench.row(run_id)["epoch"] == 1
        outside.open["/slow"].set()
        assert bench.wait_for(run_id)["status"] == "succeeded"
    assert outside.calls_of("/slow") == [1]


def _of_a_dead_worker(bench: Bench) -> RunId:
    """A run that is held by a worker of which there is no trace."""
    version = bench.publish(graph({"one": value(1)}, name="orphaned"))
    run_id = bench.start(version, not_before=datetime.now(UTC) + timedelta(days=1))
    with bench.connection.transaction():
        bench.connection.execute("DELETE FROM graphwright.run_queue WHERE run_id = %s", (run_id,))
        bench.connection.execute(
            "UPDATE graphwright.runs SET worker = %s, epoch = 1 WHERE run_id = %s",
            (new_id(), run_id),
        )
    return run_id
