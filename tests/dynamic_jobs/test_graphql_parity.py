"""What Dagster's GraphQL, and so its UI, says of a run on the fast path and under stock Dagster.

The answers are equal but for times, and for what ADR 0003 names: a node downstream of a failure is
skipped with an event where stock Dagster logs a line, and a failure has our error's name.
"""

import asyncio
import re
from collections import defaultdict
from typing import Any, cast

from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_graphql.schema import create_schema

from foundation.ids import RunId
from tests.dynamic_jobs.conftest import Bench, graph, value
from tests.dynamic_jobs.test_parity import run_fast, run_stock

# What the run page, its Gantt chart and its log ask for.
RUN = """query($run: ID!) {
    runOrError(runId: $run) { ... on Run {
        status canTerminate runConfigYaml stepKeysToExecute assets { key { path } }
        tags { key value }
        stats { ... on RunStatsSnapshot {
            stepsSucceeded stepsFailed materializations expectations
            enqueuedTime startTime endTime
        } }
        stepStats {
            stepKey status startTime endTime
            attempts { startTime endTime } markers { startTime endTime }
            materializations { __typename } expectationResults { __typename }
        }
        executionPlan {
            artifactsPersisted
            steps {
                key kind metadata { key value }
                inputs { name dependsOn { key kind outputs { name } } } outputs { name }
            }
        }
    } }
    logsForRun(runId: $run) { ... on EventConnection {
        hasMore
        events {
            __typename
            ... on MessageEvent { stepKey level message eventType timestamp }
            ... on StepEvent { solidHandleID }
            ... on MarkerEvent { markerStart markerEnd }
            ... on DisplayableEvent { label description metadataEntries { label description } }
            ... on ExecutionStepOutputEvent { outputName typeCheck {
                label description success metadataEntries { label }
            } }
            ... on HandledOutputEvent { outputName managerKey }
            ... on ExecutionStepFailureEvent {
                errorSource error { message className }
                failureMetadata { label description metadataEntries {
                    label ... on TextMetadataEntry { text }
                } }
            }
        }
    } }
}"""

SUCCEEDING = graph(
    {
        "one": value(20),
        "two": value("${{ nodes.one.output + params.more }}", "one"),
        "large": value("${{ lists.range(2000) }}"),
        "three": value({"text": "ü ${{ nodes.two.output }}"}, "two", "large"),
    },
    params={"type": "object", "properties": {"more": {"type": "integer", "default": 22}}},
)
FAILING = graph(
    {
        "one": value(1),
        "bad": value("${{ 1 / (nodes.one.output - 1) }}", "one"),
        "after": value(2, "bad"),
        "later": value(3, "after"),
        "beside": value(4, "one"),
    }
)

Events = dict[str, list[dict[str, Any]]]


def ask(run_id: RunId) -> tuple[dict[str, Any], Events]:
    """The run without its times, and its events by step; those of the run itself are below ``""``.

    A time is only said to be there or not.
    """
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as process,
    ):
        answer = asyncio.run(
            create_schema().execute_async(
                RUN, variable_values={"run": run_id}, context_value=process.create_request_context()
            )
        )
    assert answer.errors is None
    assert answer.data is not None
    masked = _masked(answer.data)
    assert masked["logsForRun"].pop("hasMore") is False
    events: Events = defaultdict(list)
    for event in masked["logsForRun"]["events"]:
        events[event["stepKey"] or ""].append(event)
    run = masked["runOrError"]
    run["stepStats"] = {stats["stepKey"]: stats for stats in run["stepStats"]}
    return run, events


def _masked(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return {name: _masked(member, name) for name, member in members.items()}
    if isinstance(value, list):
        return [_masked(item) for item in cast("list[Any]", value)]
    if key == "timestamp" or key.endswith("Time"):
        return value is not None
    if key == "message":
        return re.sub(r" in [0-9.]+\S*\.$", " in some time.", value)
    return value


def test_a_run_that_succeeds_looks_like_one_of_stock_dagster(bench: Bench) -> None:
    version = bench.publish(SUCCEEDING)
    fast, fast_events = ask(run_fast(bench, version))
    stock, stock_events = ask(run_stock(bench, version))
    assert fast["status"] == "SUCCESS"
    assert fast == stock
    own, others = fast_events.pop(""), stock_events.pop("")
    assert fast_events.keys() == set(SUCCEEDING["nodes"])
    for step, events in stock_events.items():
        assert fast_events[step] == events, step
    assert own[-1] == others[-1]
    _assert_same_start(own, others)


def test_a_run_that_fails_looks_like_one_of_stock_dagster_but_for_its_skips(bench: Bench) -> None:
    version = bench.publish(FAILING)
    fast, fast_events = ask(run_fast(bench, version))
    stock, stock_events = ask(run_stock(bench, version))
    assert fast["status"] == "FAILURE"
    skipped = {step: fast["stepStats"].pop(step) for step in ("after", "later")}
    assert fast == stock, "stock has no statistics of steps that were not executed"
    for step, stats in skipped.items():
        assert stats["status"] == "SKIPPED"
        (ours,), (theirs,) = fast_events.pop(step), stock_events.pop(step)
        assert ours["__typename"] == "ExecutionStepSkippedEvent"
        assert theirs["__typename"] == "LogMessageEvent"
    own, others = fast_events.pop(""), stock_events.pop("")
    errors = [_take_error(events) for events in (fast_events["bad"], stock_events["bad"])]
    for error in errors:
        assert "${{ 1 / (nodes.one.output - 1) }}: division by zero" in error["message"]
    assert [error["className"] for error in errors] == ["ExpressionError", "Failure"]
    assert fast_events == stock_events
    assert own[-1] == others[-1]
    _assert_same_start(own, others)


def _take_error(events: list[dict[str, Any]]) -> dict[str, Any]:
    failure = events[-1]
    assert failure["__typename"] == "ExecutionStepFailureEvent"
    return failure.pop("error")


def _assert_same_start(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """A worker also reports what a launcher would; stock adds events of its own processes."""
    kinds = [[event["eventType"] for event in events] for events in (ours, theirs)]
    assert kinds[0][:4] == ["RUN_ENQUEUED", "RUN_DEQUEUED", "RUN_STARTING", "RUN_START"]
    assert kinds[1][:2] == ["RUN_ENQUEUED", "RUN_START"]
    assert ours[3] == theirs[1]
