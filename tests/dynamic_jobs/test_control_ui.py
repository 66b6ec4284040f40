"""Re-executions that the Dagster UI launches do what our own do."""

from typing import Any

import pytest

from dynamic_jobs.controlling.graphs import pause_graph, resume_graph
from foundation.ids import GraphId, RunId
from tests.dynamic_jobs.conftest import TENANT, Bench
from tests.dynamic_jobs.test_control import go_on, rest, state_of
from tests.dynamic_jobs.test_control_rerun import DOCUMENT, again, as_dagster_has_it, executed
from tests.dynamic_jobs.test_dagster_ui import LAUNCH, RELOAD, TERMINATE, Web, bench, web

__all__ = ["bench", "web"]

pytestmark = pytest.mark.xdist_group("dagster ui")

STRATEGY = """mutation($run: String!, $strategy: ReexecutionStrategy!) { launchRunReexecution(
    reexecutionParams: {parentRunId: $run, strategy: $strategy}) { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message stack } } }"""

SELECTED = """mutation($job: String!, $steps: [String!], $tags: [ExecutionTag!]!) {
    launchRunReexecution(executionParams: {
        selector: {repositoryLocationName: "graphwright", repositoryName: "graphwright",
                   jobName: $job}
        runConfigData: {}, stepKeys: $steps, executionMetadata: {
            rootRunId: "ROOT", parentRunId: "ROOT", tags: $tags }
    }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""

GROUP = """query($run: ID!) { runGroupOrError(runId: $run) { __typename
    ... on RunGroup { rootRunId runs { runId stepKeysToExecute parentRunId status
        executionPlan { steps { key } } } } } }"""


def _run(answer: dict[str, Any]) -> RunId:
    launched = answer["launchRunReexecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return RunId(launched["run"]["runId"])


def test_the_ui_and_we_run_the_same_again(bench: Bench, web: Web) -> None:
    parent = bench.start(bench.publish(DOCUMENT), {"by": 0, "n": 4})
    web.ask(RELOAD)
    (job,) = web.jobs()
    with bench.worker():
        bench.wait_for(parent)
        ours = again(bench, parent, "failed").run_id
        theirs = _run(web.ask(STRATEGY, run=parent, strategy="FROM_FAILURE"))
        whole = _run(web.ask(STRATEGY, run=parent, strategy="ALL_STEPS"))
        for run_id in (ours, theirs, whole):
            assert bench.wait_for(run_id)["status"] == "failed"
        keys = ("dagster/parent_run_id", "dagster/root_run_id")
        steps, tags = ["aside"], [{"key": key, "value": parent} for key in keys]  # as the UI does
        asked = SELECTED.replace("ROOT", parent)
        selected = _run(web.ask(asked, job=job, steps=steps, tags=tags))
        bench.wait_for(selected)
    assert executed(bench, theirs) == executed(bench, ours) == {"second", "tidy"}
    assert executed(bench, whole) == {"first", "second", "aside", "tidy"}
    assert executed(bench, selected) == {"aside"}
    assert bench.row(theirs)["trigger"] == bench.row(ours)["trigger"] == {"type": "rest"}
    assert str(bench.row(theirs)["parent_run_id"]) == parent

    group = web.ask(GROUP, run=parent)["runGroupOrError"]
    runs = {run["runId"]: run for run in group["runs"]}
    assert group["rootRunId"] == parent
    assert runs.keys() == {parent, ours, theirs, whole, selected}
    for run_id in (ours, theirs):
        assert set(runs[run_id]["stepKeysToExecute"]) == {"second", "third", "tidy"}
        assert runs[run_id]["parentRunId"] == parent
    plans = [runs[run_id]["executionPlan"]["steps"] for run_id in (ours, theirs)]
    assert plans[0] == plans[1]
    run = as_dagster_has_it(theirs)
    assert (
        run.tags["dagster/is_resume_retry"]
        == as_dagster_has_it(ours).tags["dagster/is_resume_retry"]
    )

    # A run of ours that was repeated from its failures is repeated from the UI in turn.
    with bench.worker():
        deeper = _run(web.ask(STRATEGY, run=ours, strategy="FROM_FAILURE"))
        bench.wait_for(deeper)
    assert executed(bench, deeper) == {"second", "tidy"}


def test_the_ui_launches_into_a_paused_graph_and_cancels_a_paused_run(
    bench: Bench, web: Web
) -> None:
    version = bench.publish(DOCUMENT)
    pause_graph(bench.connection, TENANT, GraphId(version.graph_id))
    web.ask(RELOAD)
    (job,) = web.jobs()
    launched = RunId(web.ask(LAUNCH, job=job, config={})["launchRun"]["run"]["runId"])
    assert state_of(bench, launched) == "held"
    assert rest(bench, launched) == "paused"
    assert go_on(bench, launched) == "queued"
    assert state_of(bench, launched) == "held"
    resume_graph(bench.connection, TENANT, GraphId(version.graph_id))
    rest(bench, launched)
    assert web.ask(TERMINATE, run=launched)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    assert bench.row(launched)["status"] == "cancelled"
