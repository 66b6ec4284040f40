"""The step executor: retries, waits, processes, materializations, each through a real worker."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance

import node_types
from dynamic_jobs.control import cancel
from dynamic_jobs.reading.event_log import read_events
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.storage import event_storage_of
from foundation.database import AsyncPool
from foundation.ids import RunId
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_parity import run_fast, run_stock

MORE_TYPES = Path(__file__).parent / "node_types"


@pytest.fixture(autouse=True)
def more_node_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node types of the tests, as if they were installed. Asked for before ``bench``."""
    monkeypatch.setattr(node_types, "__path__", [*node_types.__path__, str(MORE_TYPES)])
    # Processes of a pool import the package anew, and find its modules by this.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MORE_TYPES), *_path()]))


def _path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []


def flaky(failures: int, **retry: Any) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "tests.flaky", "with": {"failures": failures}}
    return {**node, "retry": retry} if retry else node


def kinds(bench: Bench, run_id: RunId, node: str) -> list[str | None]:
    """Its Dagster events, but for those of resources: stock Dagster starts them for each step."""
    events = [kind for kind, step in bench.events(run_id) if step == node]
    return [kind for kind in events if kind is None or not kind.startswith("RESOURCE")]


def client_events(bench: Bench, run_id: RunId) -> list[tuple[str, str | None, int]]:
    async def read(pool: AsyncPool) -> list[tuple[str, str | None, int]]:
        async with pool.connection() as connection:
            page = await read_events(connection, TENANT, run_id, 0, 1_000)
        return [(event["type"], event["node"], event["attempt"]) for event in page.events]

    return bench.with_pool(read)


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_a_node_is_tried_again_until_it_succeeds(bench: Bench, how: Any) -> None:
    nodes = {"one": flaky(2, limit=2), "two": value("${{ nodes.one.output.attempt }}", "one")}
    run_id = how(bench, bench.publish(graph(nodes)))
    assert bench.row(run_id)["status"] == "succeeded"
    assert kinds(bench, run_id, "one") == [
        "STEP_START",
        "STEP_UP_FOR_RETRY",
        "STEP_RESTARTED",
        "STEP_UP_FOR_RETRY",
        "STEP_RESTARTED",
        "ASSET_MATERIALIZATION",
        "STEP_OUTPUT",
        "HANDLED_OUTPUT",
        "STEP_SUCCESS",
    ]
    with DagsterInstance.get() as instance:
        (step,) = (s for s in instance.get_run_step_stats(run_id) if s.step_key == "one")
        assert step.attempts == 3
        assert instance.has_asset_key(AssetKey(["tests", "one"]))


def test_clients_see_each_attempt(bench: Bench) -> None:
    run_id = run_fast(bench, bench.publish(graph({"one": flaky(1, limit=3)})))
    of_node = [(kind, attempt) for kind, node, attempt in client_events(bench, run_id) if node]
    assert of_node == [
        ("node.started", 1),
        ("node.retrying", 1),
        ("node.started", 2),
        ("node.output", 2),
        ("node.succeeded", 2),
    ]


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_after_the_last_retry_the_failure_stands(bench: Bench, how: Any) -> None:
    run_id = how(bench, bench.publish(graph({"one": flaky(9, limit=1)})))
    assert bench.row(run_id)["status"] == "failed"
    assert kinds(bench, run_id, "one") == [
        "STEP_START",
        "STEP_UP_FOR_RETRY",
        "STEP_RESTARTED",
        "STEP_FAILURE",
    ]


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_a_fault_of_the_graph_is_not_tried_again(bench: Bench, how: Any) -> None:
    nodes = {"one": {**value("${{ 1 / 0 }}"), "retry": {"limit": 5}}}
    run_id = how(bench, bench.publish(graph(nodes)))
    assert kinds(bench, run_id, "one") == ["STEP_START", "STEP_FAILURE"]


def test_a_run_that_only_waits_leaves_its_worker_and_comes_back(bench: Bench) -> None:
    nodes = {
        "before": value(1),
        "wait": {"type": "work.sleep", "needs": ["before"], "with": {"seconds": 1.5}},
        "after": value("${{ nodes.before.output + 1 }}", "before", "wait"),
    }
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker(leave_seconds=0.1):
        bench.wait_for(run_id, "waiting")
    left = time.monotonic()
    assert bench.row(run_id)["worker"] is None
    with bench.worker(leave_seconds=0.1):
        row = bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert (row["ended_at"] - row["started_at"]).total_seconds() >= 1.5
    assert time.monotonic() - left < 15  # it has not begun its wait anew for ever
    assert kinds(bench, run_id, "wait") == [
        "STEP_START",
        "ENGINE_EVENT",
        "STEP_OUTPUT",
        "HANDLED_OUTPUT",
        "STEP_SUCCESS",
    ]
    seen = [kind for kind, _, _ in client_events(bench, run_id)]
    assert seen.count("run.resumed") == 1
    assert seen.count("node.waiting") == 1
    assert seen.count("node.started") == 3


def test_a_waiting_node_says_so(bench: Bench) -> None:
    nodes = {"wait": {"type": "work.sleep", "with": {"seconds": 3_600}}}
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker():
        bench.wait_for(run_id, "waiting")

    async def read(pool: AsyncPool) -> tuple[str, str]:
        run = await RunStore(pool).get(TENANT, run_id)
        return run.status, run.nodes[next(iter(run.nodes))].status

    assert bench.with_pool(read) == ("waiting", "waiting")


def test_a_run_that_waits_off_its_worker_can_be_cancelled(bench: Bench) -> None:
    nodes = {"wait": {"type": "work.sleep", "with": {"seconds": 3_600}}}
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker():
        bench.wait_for(run_id, "waiting")
    with DagsterInstance.get() as instance:
        status = cancel(bench.connection, event_storage_of(instance).writer, TENANT, run_id)
    assert status == "cancelled"
    assert client_events(bench, run_id)[-1][0] == "run.cancelled"


def test_a_retry_delay_is_kept_off_the_worker(bench: Bench) -> None:
    version = bench.publish(graph({"one": flaky(1, limit=1, delay_seconds=1)}))
    run_id = bench.start(version)
    with bench.worker(leave_seconds=0.1):
        bench.wait_for(run_id, "waiting")
        row = bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert (row["ended_at"] - row["started_at"]).total_seconds() >= 1
    assert kinds(bench, run_id, "one")[:3] == ["STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED"]
    assert ("node.succeeded", "one", 2) in client_events(bench, run_id)


def test_runs_that_wait_leave_room_for_others(bench: Bench) -> None:
    sleeping = bench.publish(
        graph({"wait": {"type": "work.sleep", "with": {"seconds": 5}}}, name="sleeping")
    )
    quick = bench.publish(graph({"one": value(1)}, name="quick"))
    waiting = [bench.start(sleeping) for _ in range(5)]
    with bench.worker(worker_runs=1, leave_seconds=60):
        for run_id in waiting:
            bench.wait_for(run_id, "running")
        assert bench.wait_for(bench.start(quick))["status"] == "succeeded"
        assert {bench.row(run_id)["status"] for run_id in waiting} == {"running"}
        for run_id in waiting:
            bench.wait_for(run_id)


def test_computing_nodes_run_in_other_processes(bench: Bench) -> None:
    nodes = {f"n{i}": {"type": "work.compute", "with": {"seconds": 0.05}} for i in range(4)}
    run_id = bench.start(bench.publish(graph(nodes, outputs={"one": "${{ nodes.n0.output }}"})))
    before = time.process_time()
    with bench.worker():
        row = bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert row["outputs"]["one"]["seconds"] >= 0.05
    assert time.process_time() - before < 60


def test_a_process_that_dies_fails_its_node_alone(bench: Bench) -> None:
    dies: dict[str, Any] = {"type": "tests.dies", "with": {}}
    failing = bench.publish(graph({"one": dies}, name="failing"))
    computing = bench.publish(
        graph({"one": {"type": "work.compute", "with": {"seconds": 0}}}, name="computing")
    )
    with bench.worker():
        row = bench.wait_for(bench.start(failing))
        assert (row["status"], row["error"]["code"]) == ("failed", "process_lost")
        assert bench.wait_for(bench.start(computing))["status"] == "succeeded"


def test_a_materialization_equals_that_of_stock_dagster(bench: Bench) -> None:
    version = bench.publish(graph({"one": flaky(0)}))
    told: list[Any] = []
    for how in (run_fast, run_stock):
        row = bench.connection.execute(
            "SELECT event, asset_key, partition FROM event_logs WHERE run_id = %s"
            " AND dagster_event_type = 'ASSET_MATERIALIZATION'",
            (how(bench, version),),
        ).fetchone()
        assert row is not None
        event = json.loads(row["event"])["dagster_event"]
        told.append((event["event_specific_data"], event["message"], row["asset_key"]))
    assert told[0] == told[1]
