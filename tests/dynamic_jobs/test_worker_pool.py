"""The worker pool as processes of its own: who is started, stopped, replaced, and what runs do."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from foundation.ids import RunId
from tests.dynamic_jobs.conftest import Bench, graph, value
from tests.dynamic_jobs.pools import Pool, pool

FORKED = ("-m", "graphwright", "worker")
SPAWNED = (
    "-c",
    "from foundation.telemetry.logs import configure_logs\n"
    "from foundation.settings import Limits, Settings\n"
    "from dynamic_jobs.workers.worker_pool import serve\n"
    "configure_logs()\n"
    "serve(Settings(), Limits(), 'spawn')",
)


class Gate(ThreadingHTTPServer):
    """A node that asks it runs until the gate is opened."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked = Event()
        self.open = Event()

    @property
    def node(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.server_port}/"
        return {"type": "http.request", "with": {"url": url}}


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        gate = self.server
        assert isinstance(gate, Gate)
        gate.asked.set()
        gate.open.wait()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def gate() -> Generator[Gate]:
    with Gate() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()


@contextmanager
def workers(
    bench: Bench, processes: int = 1, command: tuple[str, ...] = FORKED, **environment: str
) -> Generator[Pool]:
    """A pool of workers, all of them ready."""
    given = {
        "GRAPHWRIGHT_STATE": str(bench.settings.state),
        "GRAPHWRIGHT_WORKER_PROCESSES": str(processes),
        "GRAPHWRIGHT_HTTP_PRIVATE": "1",
        "GRAPHWRIGHT_LOG_FORMAT": "text",
        **environment,
    }
    with pool(*command, **given) as started:
        started.until("is ready for", processes)
        yield started


def starts(bench: Bench, run_id: RunId, node: str) -> int:
    return bench.events(run_id).count(("STEP_START", node))


@pytest.mark.parametrize(
    ("command", "number", "group"),
    [
        (FORKED, signal.SIGTERM, False),
        (FORKED, signal.SIGTERM, True),
        (FORKED, signal.SIGINT, False),
        (FORKED, signal.SIGINT, True),
        (SPAWNED, signal.SIGTERM, False),
        pytest.param(SPAWNED, signal.SIGINT, True, marks=pytest.mark.soak),
    ],
    ids=[
        "fork-term",
        "fork-term-group",
        "fork-int",
        "fork-int-group",
        "spawn-term",
        "spawn-int-group",
    ],
)
def test_a_stop_lets_runs_finish(
    bench: Bench, gate: Gate, command: tuple[str, ...], number: signal.Signals, group: bool
) -> None:
    """Sent to the whole process group, as a terminal does, it is no second and hurried one."""
    version = bench.publish(graph({"slow": gate.node, "after": value(1, "slow")}))
    with workers(bench, processes=2, command=command) as running:
        assert len(running.children) == 2
        run_id = bench.start(version)
        gate.asked.wait()
        (os.killpg if group else os.kill)(running.process.pid, number)
        running.until("stopping: 1 runs")
        gate.open.set()
        assert running.ended() == 0, running.lines
    assert bench.row(run_id)["status"] == "succeeded"
    assert starts(bench, run_id, "slow") == 1


def test_a_second_signal_hands_runs_back(bench: Bench, gate: Gate) -> None:
    version = bench.publish(graph({"slow": gate.node}))
    with workers(bench) as running:
        run_id = bench.start(version)
        gate.asked.wait()
        running.process.terminate()
        running.until("stopping: 1 runs")
        running.process.terminate()
        assert running.ended() == 0, running.lines
    assert bench.row(run_id)["status"] == "queued"


@pytest.mark.parametrize(
    "command", [FORKED, pytest.param(SPAWNED, marks=pytest.mark.soak)], ids=["fork", "spawn"]
)
def test_children_do_not_survive_their_parent(
    bench: Bench, gate: Gate, command: tuple[str, ...]
) -> None:
    version = bench.publish(graph({"slow": gate.node}))
    with workers(bench, processes=2, command=command) as running:
        run_id = bench.start(version)
        gate.asked.wait()
        children = running.children
        running.process.kill()
        running.until("stopping: 1 runs")
        gate.open.set()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
    assert bench.row(run_id)["status"] == "succeeded"


def test_a_forked_worker_has_processes_for_nodes_that_compute(bench: Bench) -> None:
    version = bench.publish(graph({"one": {"type": "work.compute", "with": {"seconds": 0}}}))
    with workers(bench) as running:
        assert bench.wait_for(bench.start(version))["status"] == "succeeded"
        below = psutil.Process(running.process.pid).children(recursive=True)
        assert len(below) > 1
        running.process.terminate()
        assert running.ended() == 0, running.lines
        _, alive = psutil.wait_procs(below, timeout=60)
        assert not alive


def test_a_killed_worker_is_replaced(bench: Bench) -> None:
    with workers(bench, processes=2) as running:
        killed, other = running.children
        killed.kill()
        running.until(f"worker process {killed.pid} ended by SIGKILL")
        running.until("is ready for")
        fresh = {child.pid for child in running.children} - {killed.pid}
        assert other.pid in fresh
        assert len(fresh) == 2


def test_a_worker_past_its_memory_is_replaced_and_finishes_its_runs(
    bench: Bench, gate: Gate
) -> None:
    held = bench.publish(graph({"slow": gate.node}, name="held"))
    quick = bench.publish(graph({"one": value(1)}, name="quick"))
    with workers(bench, GRAPHWRIGHT_WORKER_MEMORY_MB="1") as running:
        slow = bench.start(held)
        gate.asked.wait()
        (first,) = {child.pid for child in running.children}
        runs = [bench.start(quick)]
        running.until(rf"\[{first}\].* this process leaves")
        running.until("is ready for")
        (second,) = {child.pid for child in running.children} - {first}
        runs.append(bench.start(quick))
        assert [bench.wait_for(run)["status"] for run in runs] == ["succeeded"] * 2
        running.until(rf"\[{second}\].* this process leaves")
        assert bench.row(slow)["status"] == "running", "in the first one still"
        gate.open.set()
        assert bench.wait_for(slow)["status"] == "succeeded"
        running.until(f"worker process {first} has ended")
    assert [starts(bench, run, "one") for run in runs] == [1, 1]
    assert starts(bench, slow, "slow") == 1


def test_workers_that_are_replaced_all_the_time_lose_no_run(bench: Bench) -> None:
    version = bench.publish(
        graph({"one": value(1), "two": value("${{ nodes.one.output }}", "one")})
    )
    with workers(
        bench, processes=2, GRAPHWRIGHT_WORKER_MEMORY_MB="1", GRAPHWRIGHT_WORKER_RUNS="3"
    ) as running:
        runs = [bench.start(version) for _ in range(30)]
        assert {bench.wait_for(run)["status"] for run in runs} == {"succeeded"}
        running.process.terminate()
        assert running.ended() == 0, running.lines
    assert {starts(bench, run, "two") for run in runs} == {1}
    assert sum("this process leaves" in line for line in running.lines) > 2


def computing(bench: Bench, running: Pool, seconds: float) -> tuple[RunId, list[psutil.Process]]:
    """A run that computes, and the processes below the worker that computes it."""
    node = {"type": "work.compute", "with": {"seconds": seconds}}
    run_id = bench.start(bench.publish(graph({"one": node})))
    while True:
        for worker in running.children:
            below = worker.children(recursive=True)
            if len(below) > 2:  # fork server, resource tracker, and what they made
                return run_id, below


@pytest.mark.parametrize("to", [os.kill, os.killpg])
def test_what_computes_may_finish_while_the_pool_stops(bench: Bench, to: Any) -> None:
    with workers(bench) as running:
        run_id, _ = computing(bench, running, 1.0)
        to(running.process.pid, signal.SIGTERM)
        assert running.ended() == 0
    row = bench.row(run_id)
    assert row["status"] == "succeeded", row["error"]


def test_what_computes_ends_with_its_worker(bench: Bench) -> None:
    with workers(bench) as running:
        _, below = computing(bench, running, 60.0)
        for worker in running.children:
            worker.kill()
        _, alive = psutil.wait_procs(below, timeout=30)
        assert not alive
