"""Runs with a process of their own (``isolation: process``): a real pool of workers forks them."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRun
from dagster._cli.api import ExecuteRunArgs
from dagster._serdes import deserialize_value

from dynamic_jobs.compute_logs import logs_folder
from dynamic_jobs.controlling.cancelling import cancel
from foundation.database import connect
from foundation.ids import RunId
from foundation.object_store import object_store
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_queue_recovery import Outside, holder_of, outside, short_leases
from tests.dynamic_jobs.test_worker_pool import Pool, pool

__all__ = ["outside"]

BLOCKED = """
SELECT FROM pg_locks WHERE relation = 'graphwright.placements'::regclass AND NOT granted
"""


def start(bench: Bench, name: str, outside: Outside, path: str, **more: Any) -> RunId:
    nodes = {
        "first": outside.node(f"/{name}"),
        "slow": outside.node(path, "first"),
        "last": value("${{ nodes.first.output.status }}", "slow"),
    }
    return bench.start(bench.publish(graph(nodes, name=name, isolation="process", **more)))


def captured(bench: Bench, run_id: RunId) -> list[str]:
    """What the Dagster UI shows as stderr of each process that had the run."""
    with DagsterInstance.get() as instance:
        manager: Any = instance.compute_log_manager
        keys = [
            manager.build_log_key_for_run(run_id, event.logs_captured_data.file_key)
            for record in instance.all_logs(run_id)
            if (event := record.dagster_event) and event.event_type_value == "LOGS_CAPTURED"
        ]
        return [manager.get_log_data(key).stderr.decode() for key in keys]


def kept(bench: Bench, run_id: RunId) -> Counter[str]:
    objects = object_store(bench.settings.objects_url)
    return Counter(Path(key).suffix for key in objects.keys(logs_folder(run_id)))


def until_blocked(bench: Bench) -> None:
    """Wait until somebody waits for the table of placements."""
    deadline = time.monotonic() + 30
    while bench.connection.execute(BLOCKED).fetchone() is None:
        assert time.monotonic() < deadline, "the run is not handed over"
        time.sleep(0.01)


def kill(bench: Bench, run_id: RunId, pool: Pool) -> None:
    """Kill the process that executes the run: one of the pool's, but none of its workers."""
    holder = holder_of(bench, run_id)
    assert holder is not None
    assert holder in {child.pid for child in pool.children}
    os.kill(holder, signal.SIGKILL)
    pool.until(f"process {holder}, aside, ended by SIGKILL")


def test_runs_in_processes_of_their_own(bench: Bench, outside: Outside) -> None:
    """Two are killed, one is cancelled; a worker is killed too."""
    with short_leases(bench, processes=1, seconds=3) as pool:
        (worker,) = (child.pid for child in pool.children)
        resumed = start(bench, "resumed", outside, "/slow")
        outside.asked("/slow")
        assert holder_of(bench, resumed) != worker
        pool.until("stopping: 1 runs")  # what is captured comes out here as well
        kill(bench, resumed, pool)
        outside.asked("/slow")  # in another process
        holder = holder_of(bench, resumed)
        outside.open["/slow"].set()
        row = bench.wait_for(resumed)
        assert (row["status"], row["isolation"]) == ("succeeded", "process")
        pool.until(f"process {holder}, aside, ended with code 0")
        shown = captured(bench, resumed)
        assert len(shown) == 2
        assert all("stopping: 1 runs" in each for each in shown), shown
        assert kept(bench, resumed) == {".out": 2, ".err": 2, ".complete": 1}

        failing = start(bench, "failing", outside, "/slow2", on_lost="fail")
        outside.asked("/slow2")
        os.kill(worker, signal.SIGKILL)  # which is none of the runs' business
        kill(bench, failing, pool)
        row = bench.wait_for(failing)
        assert (row["status"], row["error"]["code"]) == ("failed", "run_lost")

        cancelled = start(bench, "cancelled", outside, "/slow2")
        outside.asked("/slow2")
        cancel(bench.connection, bench.storage.writer, TENANT, cancelled)
        assert bench.wait_for(cancelled)["status"] == "cancelled"
    assert outside.calls_of("/resumed") == outside.calls_of("/failing") == [1]
    assert bench.events(cancelled)[-1] == ("PIPELINE_CANCELED", None)


def test_a_process_that_a_stopping_pool_is_asked_for_hands_its_run_back(
    bench: Bench, outside: Outside
) -> None:
    """Else the run would wait a minute for a process that nobody starts."""
    with short_leases(bench, processes=1, seconds=60) as pool:
        with connect(bench.settings.database_url) as other, other.transaction():
            other.execute("LOCK TABLE graphwright.placements IN SHARE MODE")  # stops handing over
            run_id = start(bench, "late", outside, "/slow")
            until_blocked(bench)
            pool.process.terminate()
            pool.until("stopping: 1 runs")
        pool.until(f"run {run_id} gets a process of its own")
        assert pool.ended() == 0, pool.lines
    row = bench.connection.execute(
        "SELECT state, not_before <= now() AS due FROM graphwright.run_queue"
    ).fetchone()
    assert row == {"state": "ready", "due": True}
    assert not outside.calls_of("/late")


def test_execute_run_takes_what_dagsters_launchers_call_and_hands_its_run_back(
    bench: Bench, outside: Outside
) -> None:
    """As in a pod whose cluster node is drained."""
    run_id = start(bench, "placed", outside, "/slow")
    connection = bench.connection
    connection.execute("UPDATE graphwright.run_queue SET state = 'placed', admitted = true")
    row = connection.execute("SELECT run_body FROM runs WHERE run_id = %s", (run_id,)).fetchone()
    assert row is not None
    origin = deserialize_value(row["run_body"], DagsterRun).job_code_origin
    assert origin is not None
    with DagsterInstance.get() as instance:
        asked = ExecuteRunArgs(origin, run_id, instance.get_ref()).get_command_args()
    environment = {
        "GRAPHWRIGHT_STATE": str(bench.settings.state),
        "GRAPHWRIGHT_HTTP_PRIVATE": "1",
        "GRAPHWRIGHT_DRAIN_SECONDS": "0",
    }
    with pool("-m", "graphwright", "execute-run", *asked, **environment) as process:
        outside.asked("/slow")
        assert holder_of(bench, run_id) == process.process.pid
        process.process.terminate()
        assert process.ended() == 0, process.lines
    row = connection.execute("SELECT state FROM graphwright.run_queue").fetchone()
    assert (row, bench.row(run_id)["status"]) == ({"state": "ready"}, "queued")
