"""Launches from the Dagster UI that were cut off are completed, each once."""

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
from dagster import DagsterInstance

from dynamic_jobs.workers.adopting import adopt_once
from dynamic_jobs.workers.instance import open_instance
from foundation.ids import RunId
from tests.dynamic_jobs.conftest import Bench, graph, value

PARAMS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

OURS = ("graphwright.runs", "graphwright.run_queue", "graphwright.run_slots")


@pytest.fixture
def instance(bench: Bench) -> Generator[DagsterInstance]:
    with open_instance(bench.settings.state / "dagster", bench.runtime) as opened:
        yield opened


def launched(bench: Bench, **more: Any) -> RunId:
    """A run as Dagster leaves it between its own transaction and our coordinator."""
    version = bench.publish(graph({"a": value("${{ params.n }}")}, params=PARAMS, **more))
    run_id = bench.start(version, {"n": 7})
    for table in (*OURS, "event_logs"):
        bench.connection.execute(f"DELETE FROM {table} WHERE run_id::text = %s", (run_id,))  # type: ignore
    bench.connection.execute("UPDATE runs SET status = 'NOT_STARTED' WHERE run_id = %s", (run_id,))
    return run_id


def adopt(bench: Bench, instance: DagsterInstance, grace: float = 0.0) -> int:
    return asyncio.run(adopt_once(bench.settings.database_url, instance, grace))


def test_a_run_that_our_coordinator_never_saw(bench: Bench, instance: DagsterInstance) -> None:
    run_id = launched(bench)
    assert adopt(bench, instance) == 1
    assert adopt(bench, instance) == 0
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "succeeded"
    assert bench.row(run_id)["params"] == {"n": 7}
    assert [kind for kind, _ in bench.events(run_id)].count("PIPELINE_ENQUEUED") == 1


def test_a_run_that_was_left_half_queued(bench: Bench, instance: DagsterInstance) -> None:
    run_id = launched(bench)
    adopt(bench, instance)
    bench.connection.execute("UPDATE graphwright.run_queue SET state = 'launching'")
    assert adopt(bench, instance) == 1
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "succeeded"


def test_a_launch_under_way_is_left_alone(bench: Bench, instance: DagsterInstance) -> None:
    launched(bench)
    assert adopt(bench, instance, grace=3_600) == 0


def test_a_run_that_cannot_be_queued_fails_and_says_why(
    bench: Bench, instance: DagsterInstance
) -> None:
    run_id = launched(bench)
    bench.connection.execute(
        "UPDATE runs SET run_body = replace(run_body, '{\"n\": 7}', '{}'::text),"
        " status = 'NOT_STARTED' WHERE run_id = %s",
        (run_id,),
    )
    bench.connection.execute(
        "UPDATE runs SET run_body = replace(run_body, '{\"n\":7}', '{}'::text) WHERE run_id = %s",
        (run_id,),
    )
    assert adopt(bench, instance) == 1
    run = instance.get_run_by_id(run_id)
    assert run is not None and run.status.value == "FAILURE"
    assert adopt(bench, instance) == 0


def test_what_dagster_launches_waits_for_its_place(bench: Bench, instance: DagsterInstance) -> None:
    concurrency = {"key": "${{ string(params.n) }}", "limit": 1}
    runs = [launched(bench, concurrency=concurrency) for _ in range(2)]
    assert adopt(bench, instance) == 2
    rows = bench.connection.execute("SELECT state FROM graphwright.run_queue ORDER BY state")
    assert [row["state"] for row in rows] == ["blocked", "ready"]
    with bench.worker():
        assert {bench.wait_for(run_id)["status"] for run_id in runs} == {"succeeded"}


def test_what_dagster_ends_by_force_sets_off_what_the_graph_says(
    bench: Bench, instance: DagsterInstance
) -> None:
    run_id = launched(bench, notify={"tell": {"on": ["cancelled"], "graph": "other"}})
    assert adopt(bench, instance) == 1
    run = instance.get_run_by_id(run_id)
    assert run is not None
    for _ in range(2):
        instance.report_run_canceled(run)
    rows = bench.connection.execute("SELECT run_id::text, name, status FROM graphwright.notices")
    assert rows.fetchall() == [{"run_id": run_id, "name": "tell", "status": "pending"}]
