"""The step executor: retries, waits, processes, materializations, each through a real worker."""

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any

import orjson
import pytest
from dagster import AssetKey, DagsterInstance

import node_types
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.executing import nodes as nodes_module
from dynamic_jobs.reading.event_log import read_events
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.storage import event_storage_of
from foundation.database import AsyncPool, connect
from foundation.ids import NodeId, RunId
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_parity import run_fast, run_stock


class Gate(ThreadingHTTPServer):
    """Answers requests with the statuses that it is given, and waits for each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.statuses: SimpleQueue[int] = SimpleQueue()
        self.requests = Semaphore(0)
        self.seen = 0
        self.look: Callable[[], None] = lambda: None
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def node(self) -> dict[str, Any]:
        return {"type": "http.request", "with": {"url": f"http://127.0.0.1:{self.server_port}/"}}

    def answer(self, status: int) -> None:
        self.statuses.put(status)

    def asked(self, times: int) -> None:
        """Wait until so many requests have come in all."""
        while self.seen < times:
            self.requests.acquire()
            self.seen += 1

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        gate = self.server
        assert isinstance(gate, Gate)
        gate.look()
        gate.requests.release()
        self.send_response(gate.statuses.get())
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


MORE_TYPES = Path(__file__).parent / "node_types"


@pytest.fixture(autouse=True)
def more_node_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node types of the tests, as if they were installed. Asked for before ``bench``."""
    monkeypatch.setattr(node_types, "__path__", [*node_types.__path__, str(MORE_TYPES)])


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
        "wait": {"type": "work.sleep", "needs": ["before"], "with": {"seconds": 3_600}},
        "after": value("${{ nodes.before.output + 1 }}", "before", "wait"),
    }
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker(leave_seconds=0.1):
        bench.wait_for(run_id, "waiting")
    assert bench.row(run_id)["worker"] is None
    bench.let_pass(run_id, 3_599)
    with bench.worker(leave_seconds=0.1):
        row = bench.wait_for(run_id)  # it does not begin its wait anew
    assert row["status"] == "succeeded", row["error"]
    assert (row["ended_at"] - row["started_at"]).total_seconds() >= 3_600
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
        run = await RunStore(TenantPool(pool)).get(TENANT, run_id)
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
    version = bench.publish(graph({"one": flaky(1, limit=1, delay_seconds=3_600)}))
    run_id = bench.start(version)
    with bench.worker(leave_seconds=0.1):
        bench.wait_for(run_id, "waiting")
        bench.let_pass(run_id, 3_599.5)
        row = bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert (row["ended_at"] - row["started_at"]).total_seconds() >= 3_600
    assert kinds(bench, run_id, "one")[:3] == ["STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED"]
    assert ("node.succeeded", "one", 2) in client_events(bench, run_id)


def test_a_failure_stands_when_the_run_comes_back(bench: Bench) -> None:
    """It failed before it left its worker: it is not tried again, and fails the run."""
    nodes = {
        "bad": flaky(9),
        "after": value(1, "bad"),
        "wait": {"type": "work.sleep", "with": {"seconds": 3_600}},
        "last": value(2, "wait"),
    }
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker(leave_seconds=0.1):
        bench.wait_for(run_id, "waiting")
        bench.let_pass(run_id, 3_599.5)
        row = bench.wait_for(run_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "node_failed")
    assert row["error"]["node"] == "bad"
    assert kinds(bench, run_id, "bad") == ["STEP_START", "STEP_FAILURE"]
    assert kinds(bench, run_id, "after") == ["STEP_SKIPPED"]
    assert kinds(bench, run_id, "last")[-1] == "STEP_SUCCESS"
    assert client_events(bench, run_id)[-1][0] == "run.failed"


def test_a_later_attempt_that_is_interrupted_keeps_its_number(bench: Bench) -> None:
    with Gate() as gate:
        node: dict[str, Any] = {**gate.node, "retry": {"limit": 2}}
        run_id = bench.start(bench.publish(graph({"one": node})))
        with bench.worker(http_private=True, drain_seconds=0.0):
            gate.answer(500)
            gate.asked(2)
        with bench.worker(http_private=True):
            gate.asked(3)
            gate.answer(200)  # to the request whose run has left it
            gate.answer(200)
            bench.wait_for(run_id)
    attempts = [attempt for kind, _, attempt in client_events(bench, run_id) if kind[:5] == "node."]
    assert attempts == [1, 1, 2, 2, 2, 2]

    async def read(pool: AsyncPool) -> tuple[str, int]:
        node = (await RunStore(TenantPool(pool)).get(TENANT, run_id)).nodes[NodeId("one")]
        return node.status, node.attempt

    assert bench.with_pool(read) == ("succeeded", 2)


def test_a_node_with_effects_starts_when_all_before_it_is_committed(bench: Bench) -> None:
    seen: list[Any] = []
    with connect(bench.settings.database_url) as other, Gate() as gate:

        def look() -> None:
            query = (
                "SELECT dagster_event_type AS kind, step_key FROM event_logs"
                " WHERE step_key IS NOT NULL ORDER BY id"
            )
            seen.extend((row["step_key"], row["kind"]) for row in other.execute(query))

        gate.look = look
        gate.answer(200)
        post: dict[str, Any] = {"type": "http.request", "needs": ["before"], "with": {
            "url": gate.node["with"]["url"], "method": "POST",
        }}  # fmt: skip
        run_id = bench.start(bench.publish(graph({"before": value(1), "post": post})))
        with bench.worker(http_private=True):
            assert bench.wait_for(run_id)["status"] == "succeeded"
    assert ("before", "STEP_SUCCESS") in seen
    assert seen[-1] == ("post", "STEP_START")


def test_runs_that_wait_leave_room_for_others(bench: Bench) -> None:
    sleeping = bench.publish(
        graph({"wait": {"type": "work.sleep", "with": {"seconds": 3_600}}}, name="sleeping")
    )
    nap = {"type": "work.sleep", "with": {"seconds": 0.01}}
    quick = bench.publish(graph({"nap": nap, "one": value(1, "nap")}, name="quick"))
    waiting = [bench.start(sleeping) for _ in range(5)]
    with bench.worker(worker_runs=1, leave_seconds=7_200):
        for run_id in waiting:
            bench.wait_for(run_id, "running")
        assert bench.wait_for(bench.start(quick))["status"] == "succeeded"
        assert {bench.row(run_id)["status"] for run_id in waiting} == {"running"}
        for run_id in waiting:
            cancel(bench.connection, bench.storage.writer, TENANT, run_id)
        for run_id in waiting:
            bench.wait_for(run_id, "cancelled")


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
        assert "was ended by SIGKILL" in row["error"]["message"]
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


@pytest.mark.parametrize(("levels", "status"), [(120, "succeeded"), (250, "failed")])
def test_an_output_may_not_be_nested_without_end(
    bench: Bench, tmp_path: Path, levels: int, status: str
) -> None:
    """Past some levels no reader of JSON takes it: not a client's, and not our own."""
    (tmp_path / "deep.json").write_text("[" * levels + "]" * levels)
    nodes = {"one": {"type": "file.read", "with": {"path": "deep.json"}}}
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker(file_roots=(tmp_path,)):
        row = bench.wait_for(run_id)
    assert row["status"] == status, row["error"]
    assert row["error"] is None or row["error"]["code"] == "output_too_deep"
    assert [kind for kind, _, _ in client_events(bench, run_id)].count("node.started") == 1


def test_orjson_writes_as_many_levels_as_we_reckon_with() -> None:
    value: list[Any] = []
    for _ in range(nodes_module._ORJSON_DEPTH - 1):  # pyright: ignore[reportPrivateUsage]
        value = [value]
    orjson.dumps(value)
    with pytest.raises(TypeError, match=r"[Rr]ecursion"):
        orjson.dumps([value])
