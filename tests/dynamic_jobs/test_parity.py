"""A run on the fast path leaves what the same job leaves under Dagster's own executor."""

import json
import re
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    JobDefinition,
    in_process_executor,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from dynamic_jobs.compiling.compiler import Compiler
from foundation.ids import RunId
from graph_defs.versions import GraphVersion
from tests.dynamic_jobs.conftest import Bench, graph, value

GRAPH = graph(
    {
        "one": value(20),
        "two": value("${{ nodes.one.output + params.more }}", "one"),
        "large": value("${{ lists.range(2000) }}"),
        "three": value({"text": "ü ${{ nodes.two.output }}", "none": None}, "two", "large"),
    },
    params={"type": "object", "properties": {"more": {"type": "integer", "default": 22}}},
)
STEP_EVENTS = ("STEP_START", "STEP_OUTPUT", "HANDLED_OUTPUT", "STEP_SUCCESS", "STEP_FAILURE")


def run_stock(bench: Bench, version: GraphVersion) -> RunId:
    """The same job and params under Dagster's in-process executor."""
    run_id = bench.start(version)
    bench.connection.execute("DELETE FROM graphwright.run_queue WHERE run_id = %s", (run_id,))
    job = Compiler(bench.runtime).compile(version).job
    stock = JobDefinition(
        graph_def=job.graph, resource_defs=job.resource_defs, executor_def=in_process_executor
    )
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        execute_run(InMemoryJob(stock), run.with_status(DagsterRunStatus.STARTING), instance)
    return run_id


def run_fast(bench: Bench, version: GraphVersion) -> RunId:
    run_id = bench.start(version)
    with bench.worker():
        bench.wait_for(run_id)
    return run_id


def step_events(bench: Bench, run_id: RunId) -> dict[str, list[Any]]:
    """Each step's events as stored, but for what differs between any two runs."""
    rows = bench.connection.execute(
        "SELECT step_key, event FROM event_logs WHERE run_id = %s"
        " AND dagster_event_type = ANY(%s) ORDER BY id",
        (run_id, list(STEP_EVENTS)),
    )
    events: dict[str, list[Any]] = {}
    for row in rows:
        event = json.loads(re.sub(r" in [0-9.]+\S*\.\"", ' in some time."', row["event"]))
        event["run_id"] = event["dagster_event"]["logging_tags"]["run_id"] = "run"
        event["timestamp"] = event["dagster_event"]["pid"] = None
        data: dict[str, Any] = event["dagster_event"]["event_specific_data"] or {}
        if "duration_ms" in data:
            data["duration_ms"] = None
        events.setdefault(row["step_key"], []).append(event)
    return events


def test_successful_runs_leave_the_same_events(bench: Bench) -> None:
    version = bench.publish(GRAPH)
    fast, stock = run_fast(bench, version), run_stock(bench, version)
    ours, theirs = step_events(bench, fast), step_events(bench, stock)
    assert ours.keys() == theirs.keys() == set(GRAPH["nodes"])
    for step, events in theirs.items():
        for mine, other in zip(ours[step], events, strict=True):
            assert mine == other, step


def test_both_leave_the_same_outputs_statistics_and_plan(bench: Bench) -> None:
    version = bench.publish(GRAPH)
    runs = (run_fast(bench, version), run_stock(bench, version))
    statement = "SELECT node, value FROM graphwright.node_outputs WHERE run_id = %s ORDER BY node"
    ours, theirs = (bench.connection.execute(statement, (run,)).fetchall() for run in runs)
    assert ours == theirs
    assert len(ours) == len(GRAPH["nodes"])
    with DagsterInstance.get() as instance:
        fast, stock = (instance.get_run_by_id(run) for run in runs)
        assert fast is not None
        assert stock is not None
        assert fast.status == stock.status == DagsterRunStatus.SUCCESS
        assert fast.execution_plan_snapshot_id == stock.execution_plan_snapshot_id
        stats = [instance.get_run_stats(run) for run in runs]
        for field in ("steps_succeeded", "steps_failed", "materializations", "expectations"):
            assert getattr(stats[0], field) == getattr(stats[1], field)
        steps = [
            {step.step_key: (step.status, step.attempts) for step in found}
            for found in map(instance.get_run_step_stats, runs)
        ]
        assert steps[0] == steps[1]


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_a_failure_tells_code_and_hint_either_way(bench: Bench, how: Any) -> None:
    run_id = how(bench, bench.publish(graph({"bad": value("${{ 1 / 0 }}")})))
    assert bench.row(run_id)["status"] == "failed"
    (failure,) = (
        event["dagster_event"]["event_specific_data"]
        for event in step_events(bench, run_id)["bad"]
        if event["dagster_event"]["event_type_value"] == "STEP_FAILURE"
    )
    told = {
        entry["label"]: entry["entry_data"]["text"]
        for entry in failure["user_failure_data"]["metadata_entries"]
    }
    assert told["code"] == "expression_failed"
    assert failure["error_source"] == {"__enum__": "ErrorSource.FRAMEWORK_ERROR"}
