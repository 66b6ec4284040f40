"""What graphs say about failures and time, through a real worker: ``retry``, ``when`` and so on."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from dagster import DagsterInstance

from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.pausing import pause, resume
from dynamic_jobs.executing.active import Interrupt
from dynamic_jobs.executing.execution import RunExecution
from dynamic_jobs.executing.step_events import run_paused
from dynamic_jobs.queueing.claiming import Claim
from dynamic_jobs.reading.event_log import read_events
from dynamic_jobs.reading.events import RunEvent, to_event
from dynamic_jobs.reading.runs import Run, RunStore
from dynamic_jobs.storage import event_storage_of
from dynamic_jobs.storage.records import Record
from foundation.database import AsyncPool
from foundation.ids import RunId
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_executor import Gate, flaky, kinds, more_node_types
from tests.dynamic_jobs.test_graphql_parity import ask
from tests.dynamic_jobs.test_outputs import rerun_of_two
from tests.dynamic_jobs.test_parity import run_fast, run_stock

__all__ = ["more_node_types"]

Interrupting: TypeAlias = Callable[[RunId, list[Interrupt]], None]

SLEEPS: dict[str, Any] = {"type": "work.sleep", "with": {"seconds": 3_600}}


def client_events(bench: Bench, run_id: RunId, kind: str | None = None) -> list[RunEvent]:
    async def read(pool: AsyncPool) -> list[RunEvent]:
        async with pool.connection() as connection:
            page = await read_events(connection, TENANT, run_id, 0, 1_000)
        return [event for event in page.events if kind in (None, event["type"])]

    return bench.with_pool(read)


def awaited(bench: Bench, run_id: RunId, kind: str) -> None:
    """Wait until there is such an event."""
    deadline = time.monotonic() + 30
    while not client_events(bench, run_id, kind):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def heard(bench: Bench) -> None:
    """Return once its worker, which no run leaves to wait, has heard all that it was told before.

    It is told things in order.
    """
    last = bench.start(bench.publish(graph({"wait": SLEEPS}, name="told-last")))
    bench.wait_for(last, "running")
    cancel(bench.connection, bench.storage.writer, TENANT, last)
    bench.wait_for(last, "cancelled")


def states(bench: Bench, run_id: RunId) -> dict[str, str]:
    async def read(pool: AsyncPool) -> Run:
        return await RunStore(TenantPool(pool)).get(TENANT, run_id)

    return {node: state.status for node, state in bench.with_pool(read).nodes.items()}


def after(node: dict[str, Any], *needs: str, when: str = "succeeded") -> dict[str, Any]:
    return {**node, "needs": list(needs), "when": when}


HANDLED = graph(
    {
        "bad": {**flaky(9), "continue_on_error": True},
        "next": value("${{ has(nodes.bad.output) ? 'whole' : nodes.bad.status }}", "bad"),
        "handler": after(value("never"), "next", when="failed"),
        "always": after(value("${{ nodes.handler.status }}"), "handler", when="always"),
    },
    outputs={"error": "${{ nodes.bad.error }}", "next": "${{ nodes.next.output }}"},
)
FAILING = graph(
    {
        "bad": flaky(9),
        "next": value(1, "bad"),
        "handler": after(
            value("${{ nodes.bad.error.code }}: ${{ nodes.bad.error.message }}"),
            "next",
            when="failed",
        ),
        "rescued": value("${{ nodes.handler.output }}", "handler"),
        "always": after(value("${{ nodes.next.status }}"), "rescued", "next", when="always"),
        "beside": value(2),
        "idle": after(value(3), "beside", when="failed"),
    },
    outputs={"never": "${{ nodes.beside.output }}"},
)


def test_a_run_goes_on_after_a_failure_that_is_handled(bench: Bench) -> None:
    run_id = run_fast(bench, bench.publish(HANDLED))
    row = bench.row(run_id)
    assert (row["status"], row["error"]) == ("succeeded", None)
    assert row["outputs"] == {
        "error": {"code": "node_failed", "message": "attempt 1 failed", "hint": "again"},
        "next": "failed",
    }
    assert states(bench, run_id) == {
        "bad": "failed",
        "next": "succeeded",
        "handler": "skipped",
        "always": "succeeded",
    }
    (failed,) = client_events(bench, run_id, "node.failed")
    assert failed["data"]["handled"] is True


def test_the_dagster_ui_shows_a_handled_failure_in_a_run_that_succeeded(bench: Bench) -> None:
    run, log = ask(run_fast(bench, bench.publish(HANDLED)))
    assert run["status"] == "SUCCESS"
    steps = {step: stats["status"] for step, stats in run["stepStats"].items()}
    assert steps == {
        "bad": "FAILURE",
        "next": "SUCCESS",
        "handler": "SKIPPED",
        "always": "SUCCESS",
    }
    assert (run["stats"]["stepsSucceeded"], run["stats"]["stepsFailed"]) == (2, 1)
    (failure,) = (e for e in log["bad"] if e["__typename"] == "ExecutionStepFailureEvent")
    assert "The run goes on" in failure["message"]


def test_handlers_run_before_a_run_fails(bench: Bench) -> None:
    run_id = run_fast(bench, bench.publish(FAILING))
    row = bench.row(run_id)
    assert (row["status"], row["outputs"]) == ("failed", None)
    assert (row["error"]["code"], row["error"]["node"]) == ("node_failed", "bad")
    assert states(bench, run_id) == {
        "bad": "failed",
        "next": "skipped",
        "handler": "succeeded",
        "rescued": "succeeded",
        "always": "succeeded",
        "beside": "succeeded",
        "idle": "skipped",
    }
    made = {e["node"]: e["data"]["value"] for e in client_events(bench, run_id, "node.output")}
    assert made["rescued"] == "node_failed: attempt 1 failed"
    assert made["always"] == "skipped"
    (failed,) = client_events(bench, run_id, "node.failed")
    assert "handled" not in failed["data"]
    run, _ = ask(run_id)
    assert (run["status"], run["stats"]["stepsFailed"]) == ("FAILURE", 1)


def test_an_output_that_is_not_there_fails_the_expression(bench: Bench) -> None:
    nodes = {
        "bad": {**flaky(9), "continue_on_error": True},
        "next": value("${{ nodes.bad.output.attempt }}", "bad"),
    }
    error = bench.row(run_fast(bench, bench.publish(graph(nodes))))["error"]
    assert (error["code"], error["node"]) == ("expression_failed", "next")
    assert 'node "bad" failed, so it has no output' in error["message"]
    assert "nodes.bad.status" in error["hint"]


def test_what_was_handled_stays_so_when_the_run_comes_back(bench: Bench) -> None:
    nodes = {
        "bad": flaky(9),
        "lenient": {**flaky(9), "continue_on_error": True},
        "after_bad": value(1, "bad"),
        "early": after(value(2), "bad", when="failed"),
        "wait": after(SLEEPS, "lenient"),
        "handler": after(
            value("${{ nodes.lenient.status }} ${{ nodes.after_bad.status }}"),
            "wait",
            "after_bad",
            "early",
            when="failed",
        ),
    }
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker(leave_seconds=0.1):
        bench.wait_for(run_id, "waiting")
    bench.let_pass(run_id, 3_599.5)
    with bench.worker(leave_seconds=0.1):
        row = bench.wait_for(run_id)
    assert (row["status"], row["error"]["node"]) == ("failed", "bad")
    made = {e["node"]: e["data"].get("value") for e in client_events(bench, run_id, "node.output")}
    assert made["handler"] == "failed skipped"
    for node in ("bad", "lenient"):
        assert kinds(bench, run_id, node) == ["STEP_START", "STEP_FAILURE"]
    assert kinds(bench, run_id, "early").count("STEP_START") == 1
    assert kinds(bench, run_id, "after_bad") == ["STEP_SKIPPED"]


def test_what_was_handled_stays_so_when_its_worker_is_gone(bench: Bench) -> None:
    with Gate() as gate:
        nodes = {
            "lenient": {**flaky(9), "continue_on_error": True},
            "bad": flaky(9),
            "lost": value(1, "bad"),
            "under_way": {**gate.node, "needs": ["lenient"]},
            "handler": after(value("${{ nodes.bad.status }}"), "lost", "under_way", when="failed"),
        }
        run_id = bench.start(bench.publish(graph(nodes)))
        with bench.worker(http_private=True, drain_seconds=0.0):
            gate.asked(1)
        with bench.worker(http_private=True):
            gate.asked(2)
            gate.answer(200)  # to the request whose run has left it
            gate.answer(200)
            row = bench.wait_for(run_id)
    assert (row["status"], row["error"]["node"]) == ("failed", "bad")
    for node in ("lenient", "bad"):
        assert kinds(bench, run_id, node) == ["STEP_START", "STEP_FAILURE"]
    assert kinds(bench, run_id, "lost") == ["STEP_SKIPPED"]
    assert states(bench, run_id)["handler"] == "succeeded"


def test_delays_double_up_to_their_maximum(bench: Bench) -> None:
    retry = {"limit": 4, "delay_seconds": 0.01, "backoff": "exponential", "max_delay_seconds": 0.03}
    run_id = run_fast(bench, bench.publish(graph({"one": flaky(4, **retry)})))
    assert bench.row(run_id)["status"] == "succeeded"
    events = client_events(bench, run_id, "node.retrying")
    assert [event["data"]["seconds"] for event in events] == [0.01, 0.02, 0.03, 0.03]


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_only_the_errors_that_are_named_are_tried_again(bench: Bench, how: Any) -> None:
    nodes = {
        "named": flaky(1, limit=2, on=["node_failed"]),
        "other": flaky(1, limit=2, on=["timeout"]),
    }
    run_id = how(bench, bench.publish(graph(nodes)))
    assert "STEP_SUCCESS" in kinds(bench, run_id, "named")
    assert kinds(bench, run_id, "other") == ["STEP_START", "STEP_FAILURE"]


@pytest.mark.parametrize("leave_seconds", [0.05, 60.0])
def test_a_run_fails_at_its_deadline(bench: Bench, leave_seconds: float) -> None:
    """Also when it waits off the worker."""
    nodes = {
        "done": value(1),
        "wait": after(SLEEPS, "done"),
        "next": value(2, "wait"),
        "always": after(value(3), "next", when="always"),
    }
    run_id = bench.start(bench.publish(graph(nodes, timeout_seconds=0.5)))
    with bench.worker(leave_seconds=leave_seconds):
        row = bench.wait_for(run_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "run_timeout")
    assert states(bench, run_id) == {
        "done": "succeeded",
        "wait": "cancelled",
        "next": "skipped",
        "always": "skipped",
    }
    (ended,) = client_events(bench, run_id, "run.failed")
    assert ended["data"]["error"]["code"] == "run_timeout"
    assert (row["ended_at"] - row["started_at"]).total_seconds() >= 0.5


def test_a_deadline_does_not_hide_what_the_run_failed_by(bench: Bench) -> None:
    # It fails within the very turn of the event loop in which the run starts.
    nodes = {"bad": value("${{ 1 / 0 }}"), "handler": after(SLEEPS, "bad", when="failed")}
    run_id = run_fast(bench, bench.publish(graph(nodes, timeout_seconds=0.3)))
    assert bench.row(run_id)["error"]["node"] == "bad"


def test_a_node_that_waits_off_the_worker_times_out(bench: Bench) -> None:
    nodes = {"wait": {"type": "work.sleep", "with": {"seconds": 7_200}, "timeout_seconds": 3_600}}
    run_id = bench.start(bench.publish(graph(nodes)))
    with bench.worker(leave_seconds=0.05):
        bench.wait_for(run_id, "waiting")
        bench.let_pass(run_id, 3_599.5)
        row = bench.wait_for(run_id)
    assert (row["error"]["code"], row["error"]["node"]) == ("timeout", "wait")


@pytest.mark.parametrize(
    "document",
    [HANDLED, graph({"one": value(1)}, timeout_seconds=60)],
    ids=["policies", "timeout"],
)
def test_stock_executors_refuse_what_they_cannot_do(bench: Bench, document: Any) -> None:
    run_id = run_stock(bench, bench.publish(document))
    assert bench.row(run_id)["status"] == "failed"
    (failed,) = client_events(bench, run_id, "node.failed")
    assert failed["data"]["error"]["code"] == "executor_unfit"
    assert client_events(bench, run_id, "node.output") == []


class Reached(RunExecution):
    """Executes runs that can be interrupted from outside of the event loop."""

    inside: asyncio.AbstractEventLoop
    last: "Reached"

    async def execute(self, claimed: Claim) -> None:
        Reached.last, self.inside = self, asyncio.get_running_loop()
        await super().execute(claimed)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupting:
    """Interrupts a run that has started, in the worker of this process, all at the same time."""
    monkeypatch.setattr("dynamic_jobs.workers.worker.RunExecution", Reached)

    def send(run_id: RunId, whys: list[Interrupt]) -> None:
        def inside() -> None:
            for why in whys:
                Reached.last.interrupt(run_id, why)

        Reached.last.inside.call_soon_threadsafe(inside)

    return send


def until(seconds: float) -> None:
    """Wait for this time since 1970 to have come."""
    while time.time() < seconds:
        time.sleep(0.01)


def test_a_pause_lets_what_is_under_way_finish(bench: Bench) -> None:
    """And nothing new starts: not even an attempt whose delay is over. Then all of it goes on."""
    with Gate() as gate, Gate() as failing, DagsterInstance.get() as instance:
        writer = event_storage_of(instance).writer
        nodes = {
            "under_way": gate.node,
            "retry": {**failing.node, "retry": {"limit": 1, "delay_seconds": 0.05}},
            "wait": {"type": "work.sleep", "with": {"seconds": 1}},
            "lenient": {**flaky(9), "continue_on_error": True},
            "next": value("${{ nodes.lenient.status }}", "under_way", "lenient"),
        }
        run_id = bench.start(bench.publish(graph(nodes)))
        with bench.worker(http_private=True, leave_seconds=7_200):
            gate.asked(1)
            failing.asked(1)
            pause(bench.connection, writer, TENANT, run_id)
            heard(bench)
            failing.answer(500)
            awaited(bench, run_id, "node.retrying")
            until(time.time() + 0.1)  # longer than the delay
            awaited(bench, run_id, "node.succeeded")  # the one that waits
            gate.answer(200)
            bench.wait_for(run_id, "paused")
            assert states(bench, run_id) == {
                "under_way": "succeeded",
                "retry": "retrying",
                "wait": "succeeded",
                "lenient": "failed",
                "next": "pending",
            }
            failing.answer(200)
            resume(bench.connection, writer, TENANT, run_id)
            row = bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert states(bench, run_id)["next"] == "succeeded"
    for node in ("under_way", "retry", "wait", "lenient"):
        assert kinds(bench, run_id, node).count("STEP_START") == 1
    said = [event["type"] for event in client_events(bench, run_id)]
    assert said.index("run.paused") < said.index("run.resumed") < said.index("run.succeeded")


def test_a_run_that_only_waits_is_paused_at_once(bench: Bench) -> None:
    retry = flaky(1, limit=1, delay_seconds=3_600)
    run_id = bench.start(bench.publish(graph({"wait": SLEEPS, "retry": retry})))
    with bench.worker(leave_seconds=7_200), DagsterInstance.get() as instance:
        awaited(bench, run_id, "node.retrying")
        awaited(bench, run_id, "node.waiting")
        pause(bench.connection, event_storage_of(instance).writer, TENANT, run_id)
        bench.wait_for(run_id, "paused")
    assert states(bench, run_id) == {"wait": "waiting", "retry": "retrying"}
    assert ("PIPELINE_FAILURE", None) not in bench.events(run_id)


def test_a_cancel_ends_a_run_that_is_being_paused(bench: Bench, interrupt: Interrupting) -> None:
    with Gate() as gate, bench.worker(http_private=True):
        run_id = bench.start(bench.publish(graph({"one": gate.node, "two": value(1, "one")})))
        gate.asked(1)
        interrupt(run_id, ["pause", "cancel"])
        assert bench.wait_for(run_id)["status"] == "cancelled"
        gate.answer(200)
    assert states(bench, run_id) == {"one": "cancelled", "two": "cancelled"}


def test_nodes_clean_up_before_a_run_is_cancelled(bench: Bench, interrupt: Interrupting) -> None:
    """Also where part of a graph runs again: that is in a thread, and waits in another way."""
    version = bench.publish(graph({name: {"type": "tests.tidy"} for name in ("one", "two")}))
    whole = bench.start(version)
    part = rerun_of_two(bench, version, whole)
    with bench.worker():
        for run_id, nodes in ((whole, 2), (part, 1)):
            awaited(bench, run_id, "node.log")
            interrupt(run_id, ["cancel", "cancel", "pause", "hand_back"])
            assert bench.wait_for(run_id)["status"] == "cancelled"
            events = client_events(bench, run_id)
            assert [e["data"].get("message") for e in events].count("cleaned up") == nodes
            assert events[-1]["type"] == "run.cancelled"


def test_a_paused_run_says_so_to_clients(bench: Bench) -> None:
    record = Record.of(run_paused("some-run", "some_job"))
    event = to_event("some-run", 7, record.event, record.event_type)
    assert event is not None
    assert (event["type"], event["node"], event["data"]) == ("run.paused", None, {})
    stripped = json.loads(record.event)
    stripped["dagster_event"]["event_specific_data"]["metadata_entries"] = []
    assert to_event("some-run", 7, json.dumps(stripped), record.event_type) is None
