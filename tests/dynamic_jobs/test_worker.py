"""Runs, end to end: real PostgreSQL, real Valkey, real Dagster, a real worker."""

import json

import pytest
from dagster import DagsterInstance

from foundation.database import connect
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_executor import Gate

DIAMOND = graph(
    {
        "rows": value([{"n": 1}, {"n": 2}, {"n": 3}]),
        "big": value("${{ nodes.rows.output.filter(r, r.n >= params.least) }}", "rows"),
        "names": value("${{ nodes.rows.output.map(r, 'n' + string(r.n)) }}", "rows"),
        "joined": value(
            "${{ size(nodes.big.output) }} of ${{ size(nodes.names.output) }}", "big", "names"
        ),
    },
    params={"type": "object", "properties": {"least": {"type": "integer", "default": 2}}},
    outputs={"text": "${{ nodes.joined.output }}", "run": "${{ run.graph }}"},
)


def test_a_run_goes_from_trigger_to_outputs(bench: Bench) -> None:
    run_id = bench.start(bench.publish(DIAMOND))
    with bench.worker():
        row = bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert row["outputs"] == {"text": "2 of 3", "run": "tested"}
    assert row["started_at"] <= row["ended_at"]
    events = bench.events(run_id)
    assert events[0] == ("PIPELINE_ENQUEUED", None)
    assert events[-1] == ("PIPELINE_SUCCESS", None)
    for node in DIAMOND["nodes"]:
        assert [kind for kind, step in events if step == node] == [
            "STEP_START",
            "STEP_OUTPUT",
            "HANDLED_OUTPUT",
            "STEP_SUCCESS",
        ]
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status.value == "SUCCESS"
        assert run.tags["graphwright/tenant"] == TENANT
        stats = instance.get_run_stats(run_id)
        assert stats.steps_succeeded == len(DIAMOND["nodes"])


def test_params_reach_the_expressions(bench: Bench) -> None:
    run_id = bench.start(bench.publish(DIAMOND), {"least": 1})
    with bench.worker():
        assert bench.wait_for(run_id)["outputs"]["text"] == "3 of 3"


def test_a_failing_node_fails_the_run_and_skips_what_needs_it(bench: Bench) -> None:
    document = graph(
        {
            "fine": value(1),
            "broken": value("${{ nodes.fine.output / 0 }}", "fine"),
            "after": value("${{ nodes.broken.output }}", "broken"),
            "aside": value(2, "fine"),
        }
    )
    run_id = bench.start(bench.publish(document))
    with bench.worker():
        row = bench.wait_for(run_id)
    assert row["status"] == "failed"
    assert row["error"]["node"] == "broken"
    assert row["error"]["code"] == "expression_failed"
    events = bench.events(run_id)
    assert ("STEP_FAILURE", "broken") in events
    assert ("STEP_SKIPPED", "after") in events
    assert ("STEP_SUCCESS", "aside") in events
    assert events[-1] == ("PIPELINE_FAILURE", None)


def test_outputs_that_fail_fail_the_run(bench: Bench) -> None:
    document = graph({"one": value(1)}, outputs={"bad": "${{ nodes.one.output / 0 }}"})
    run_id = bench.start(bench.publish(document))
    with bench.worker():
        row = bench.wait_for(run_id)
    assert row["status"] == "failed"
    assert row["error"]["code"] == "expression_failed"


def test_runs_execute_at_once(bench: Bench) -> None:
    with Gate() as gate:
        version = bench.publish(graph({"ask": gate.node}))
        runs = [bench.start(version) for _ in range(6)]
        with bench.worker(http_private=True):
            gate.asked(len(runs))
            for _ in runs:
                gate.answer(200)
            rows = [bench.wait_for(run_id) for run_id in runs]
    assert {row["status"] for row in rows} == {"succeeded"}
    assert max(row["started_at"] for row in rows) < min(row["ended_at"] for row in rows)


@pytest.mark.parametrize("status", ["queued", "running"])
def test_the_dagster_instance_cancels_a_run(bench: Bench, status: str) -> None:
    version = bench.publish(
        graph({"wait": {"type": "work.sleep", "with": {"seconds": 60}}, "after": value(1, "wait")})
    )
    run_id = bench.start(version)
    with DagsterInstance.get() as instance:
        if status == "queued":
            assert instance.run_coordinator.cancel_run(run_id)
        else:
            with bench.worker(leave_seconds=3_600):
                bench.wait_for(run_id, "running")
                assert instance.run_coordinator.cancel_run(run_id)
                bench.wait_for(run_id)
        assert bench.row(run_id)["status"] == "cancelled"
        assert bench.events(run_id)[-1] == ("PIPELINE_CANCELED", None)
        assert not instance.run_coordinator.cancel_run(run_id), "it has ended"


def test_a_stopping_worker_hands_its_runs_back(bench: Bench) -> None:
    with Gate() as gate:
        nodes = {
            "first": value("kept"),
            "slow": {**gate.node, "needs": ["first"]},
            "last": value("${{ nodes.first.output }}", "slow"),
        }
        version = bench.publish(graph(nodes, outputs={"last": "${{ nodes.last.output }}"}))
        run_id = bench.start(version)
        with bench.worker(http_private=True, drain_seconds=0.0):
            gate.asked(1)
        assert bench.row(run_id)["status"] == "queued"
        with bench.worker(http_private=True):
            gate.asked(2)
            gate.answer(200)  # to the request whose run has left it
            gate.answer(200)
            row = bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert row["outputs"] == {"last": "kept"}
    events = bench.events(run_id)
    assert events.count(("STEP_START", "first")) == 1, "what had completed ran again"
    assert events.count(("STEP_START", "slow")) == 2
    assert events.count(("PIPELINE_SUCCESS", None)) == 1


def test_a_stopping_worker_lets_its_runs_finish(bench: Bench) -> None:
    with Gate() as gate:
        run_id = bench.start(bench.publish(graph({"slow": gate.node})))
        with bench.worker(http_private=True) as worker:
            gate.asked(1)
            worker.stop()
            gate.answer(200)
            assert bench.wait_for(run_id)["status"] == "succeeded"


def test_a_worker_without_the_node_type_hands_the_run_back(bench: Bench) -> None:
    version = bench.publish(graph({"one": value(1)}))
    run_id = bench.start(version)
    bench.connection.execute(
        "UPDATE graphwright.graph_versions SET node_types = %s WHERE graph_version_id = %s",
        (json.dumps({"data.transform": 99}), version.graph_version_id),
    )
    with bench.worker():
        while bench.row(run_id)["epoch"] < 2:  # claimed once, handed back once
            pass
    assert bench.row(run_id)["status"] == "queued"
    assert bench.events(run_id) == [("PIPELINE_ENQUEUED", None)]
    queued = "SELECT 1 FROM graphwright.run_queue WHERE run_id = %s"
    assert bench.connection.execute(queued, (run_id,)).fetchone()


def test_any_json_survives_params_outputs_and_failure(bench: Bench) -> None:
    odd = {"big": 1e300, "": [None, "\u2028"]}
    version = bench.publish(
        graph(
            {"one": value("${{ params.odd }}"), "bad": value("${{ 1 / params.zero }}")},
            params={"type": "object"},
            outputs={"odd": "${{ nodes.one.output }}"},
        )
    )
    good = bench.start(version, {"odd": odd, "zero": 1})
    failing = bench.start(version, {"odd": odd, "zero": 0})
    with bench.worker():
        row = bench.wait_for(good)
        assert row["status"] == "succeeded", row["error"]
        assert row["outputs"] == {"odd": odd}
        assert bench.wait_for(failing)["status"] == "failed"
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(failing)
        assert run is not None
        assert run.tags["dagster/failure_reason"] == "STEP_FAILURE"


def test_a_cancel_while_nobody_listens_is_heeded(bench: Bench) -> None:
    """The notification is lost with the connection; the worker asks when it listens again."""
    version = bench.publish(graph({"wait": {"type": "work.sleep", "with": {"seconds": 60}}}))
    run_id = bench.start(version)
    listening = (
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND query LIKE '%AS held (tenant, run_id)%'"  # the last that a listener asks
    )
    with bench.worker(leave_seconds=3_600), DagsterInstance.get() as instance:
        bench.wait_for(run_id, "running")
        while not bench.connection.execute(f"SELECT {listening}").fetchall():
            pass
        bench.connection.execute(f"SELECT pg_terminate_backend(pid) {listening}")
        assert instance.run_coordinator.cancel_run(run_id)
        assert bench.wait_for(run_id)["status"] == "cancelled"


def test_a_cancel_at_the_moment_of_handing_back_ends_the_run(bench: Bench) -> None:
    """It is neither on the queue nor with a worker then; the next worker ends it."""
    handing_back = (
        "SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with connect(bench.settings.database_url) as other, Gate() as gate:
        run_id = bench.start(bench.publish(graph({"ask": gate.node})))
        with bench.worker(http_private=True, drain_seconds=0.0) as worker:
            gate.asked(1)  # all of it is committed
            with other.transaction():
                other.execute(
                    "UPDATE graphwright.runs SET status = 'cancelling' WHERE run_id = %s", (run_id,)
                )
                worker.stop()
                while not bench.connection.execute(handing_back).fetchall():
                    pass  # before that it may still see the cancel, and heed it
        assert bench.row(run_id)["status"] == "cancelling"
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "cancelled"


def test_a_run_that_cannot_be_read_takes_no_other_with_it(bench: Bench) -> None:
    version = bench.publish(graph({"one": value(1)}))
    bad, *good = bench.start_many(version, 5)
    bench.connection.execute("UPDATE runs SET run_body = 'nonsense' WHERE run_id = %s", (bad,))
    with bench.worker():
        assert {bench.wait_for(run_id)["status"] for run_id in good} == {"succeeded"}
        row = bench.wait_for(bad)
    assert (row["status"], row["error"]["code"]) == ("failed", "internal")
