"""The stock Dagster webserver over our storage, window and coordinator."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dynamic_jobs.naming import DISPATCH_TIMERS
from foundation.ids import RunId
from foundation.settings import Limits, Settings
from graph_defs.parsing import parse
from graphwright.home import workspace_file
from tests.databases import Databases
from tests.dynamic_jobs.conftest import Bench, graph, opened, value
from tests.services import free_port

pytestmark = [
    pytest.mark.xdist_group("dagster ui"),
    pytest.mark.timeout(300),  # on a busy machine the webserver takes a minute to start
]

RUNS = """{ runsOrError(limit: 10) { __typename ... on Runs { results {
    runId status jobName
    stats { ... on RunStatsSnapshot { stepsSucceeded startTime endTime } }
    stepStats { stepKey status startTime endTime }
    executionPlan { steps { key inputs { dependsOn { key } } } }
} } } }"""

LOGS = """query($run: ID!) { logsForRun(runId: $run) { __typename
    ... on EventConnection { events { __typename ... on MessageEvent { stepKey message } } }
    ... on PythonError { message stack } } }"""

JOBS = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on RepositoryLocation { repositories { name jobs { name } } }
    ... on PythonError { message stack } } } } } }"""

RELOAD = """mutation { reloadRepositoryLocation(repositoryLocationName: "graphwright") {
    __typename ... on WorkspaceLocationEntry { loadStatus } } }"""

LAUNCH = """mutation($job: String!, $config: RunConfigData) { launchRun(executionParams: {
    selector: {repositoryLocationName: "graphwright", repositoryName: "graphwright", jobName: $job}
    runConfigData: $config }) { __typename ... on LaunchRunSuccess { run { runId status } }
    ... on PythonError { message } ... on RunConfigValidationInvalid { errors { message } } } }"""

REEXECUTE = """mutation($run: String!) { launchRunReexecution(reexecutionParams: {
    parentRunId: $run, strategy: FROM_FAILURE }) { __typename
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message stack } } }"""

TERMINATE = """mutation($run: String!) { terminateRun(runId: $run) { __typename } }"""


@dataclass
class Web:
    """A Dagster webserver's GraphQL endpoint."""

    url: str

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def jobs(self) -> set[str]:
        """The jobs of graphs."""
        entry = self.ask(JOBS)["workspaceOrError"]["locationEntries"][0]
        location = entry["locationOrLoadError"]
        assert location["__typename"] == "RepositoryLocation", location
        found = {job["name"] for job in location["repositories"][0]["jobs"]}
        return found - {DISPATCH_TIMERS}


@pytest.fixture(scope="module")
def bench(
    databases: Databases, shared_redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Bench]:
    """One for all of these tests, as a webserver takes seconds to start."""
    with databases.lend() as url, pytest.MonkeyPatch.context() as environment:
        settings = Settings(
            state=tmp_path_factory.mktemp("ui") / "state",
            database_url=url,
            redis_url=shared_redis_url,
            code_port=free_port(),
        )
        environment.setenv("GRAPHWRIGHT_CODE_PORT", str(settings.code_port))
        with opened(settings, Limits()) as bench:
            yield bench


@pytest.fixture(scope="module")
def web(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Generator[Web]:
    with dagster_ui(bench.settings.code_port, tmp_path_factory.mktemp("web")) as found:
        yield found


@contextmanager
def dagster_ui(code_port: int, folder: Path) -> Generator[Web]:
    """The code server and the webserver, as ``graphwright up`` starts them."""
    web_port = free_port()
    bin_folder = Path(sys.executable).parent
    commands = (
        ["dagster", "api", "grpc", "-m", "graphwright.definitions", "-p", str(code_port)],
        ["dagster-webserver", "-h", "127.0.0.1", "-p", str(web_port), "-w", str(workspace_file())],
    )
    with (folder / "dagster.log").open("wb") as log:
        processes = [
            subprocess.Popen(
                [str(bin_folder / command[0]), *command[1:]],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={
                    **os.environ,
                    "GRAPHWRIGHT_CODE_HOST": "127.0.0.1",
                    "PYTHONWARNINGS": "ignore",
                },
                start_new_session=True,
            )
            for command in commands
        ]
        try:
            found = Web(f"http://127.0.0.1:{web_port}")
            _until_it_answers(found, folder / "dagster.log")
            yield found
        finally:
            for process in processes:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _until_it_answers(web: Web, log: Path) -> None:
    deadline = time.monotonic() + 200
    while True:
        try:
            web.ask(RELOAD)
            web.jobs()
            return
        except (httpx.HTTPError, AssertionError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)


def run_of(web: Web, run_id: RunId) -> dict[str, Any]:
    """What the UI's list of runs shows of this one."""
    shown = web.ask(RUNS)["runsOrError"]["results"]
    return next(run for run in shown if run["runId"] == run_id)


def test_the_ui_shows_launches_cancels_and_repeats_runs(bench: Bench, web: Web) -> None:
    version = bench.publish(
        graph(
            {
                "rows": value([1, 2, 3]),
                "kept": value("${{ nodes.rows.output.filter(r, r >= params.least) }}", "rows"),
                "share": value("${{ 6 / (size(nodes.kept.output) - params.off) }}", "kept"),
            },
            name="ui-graph",
            params={
                "type": "object",
                "properties": {
                    "least": {"type": "integer", "default": 2},
                    "off": {"type": "integer", "default": 0},
                },
            },
            outputs={"share": "${{ nodes.share.output }}"},
        )
    )
    queued = bench.start(version)
    assert run_of(web, queued)["status"] == "QUEUED", "a queued run can be shown"

    with bench.worker():
        bench.wait_for(queued)
        run = run_of(web, queued)
        assert run["status"] == "SUCCESS"
        assert run["stats"]["stepsSucceeded"] == 3
        assert {step["status"] for step in run["stepStats"]} == {"SUCCESS"}
        plan = {step["key"]: step["inputs"] for step in run["executionPlan"]["steps"]}
        assert plan["kept"][0]["dependsOn"][0]["key"] == "rows"
        kinds = [event["__typename"] for event in web.ask(LOGS, run=queued)["logsForRun"]["events"]]
        assert kinds.count("ExecutionStepSuccessEvent") == 3
        assert kinds[-1] == "RunSuccessEvent"

        # A graph published while the UI is open is a job after a reload, with no new process.
        web.ask(RELOAD)
        (job,) = (job for job in web.jobs() if job.startswith("ui_graph__"))

        config = {"resources": {"params": {"config": {"least": 3}}}}
        launched = web.ask(LAUNCH, job=job, config=config)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        row = bench.wait_for(RunId(launched["run"]["runId"]))
        assert row["status"] == "succeeded", row["error"]
        assert row["outputs"] == {"share": 6}
        assert row["trigger"] == {"type": "dagster"}
        assert row["sort_id"] > bench.row(queued)["sort_id"], "lists show it as the newer one"

        config = {"resources": {"params": {"config": {"least": "many"}}}}
        refused = web.ask(LAUNCH, job=job, config=config)["launchRun"]
        assert refused["__typename"] == "PythonError", refused
        assert "least" in refused["message"]

        # From the failed node: what had succeeded is not run again, its outputs are adopted.
        config = {"resources": {"params": {"config": {"off": 2}}}}
        failed = RunId(web.ask(LAUNCH, job=job, config=config)["launchRun"]["run"]["runId"])
        assert bench.wait_for(failed)["status"] == "failed"
        again = web.ask(REEXECUTE, run=failed)["launchRunReexecution"]
        assert again["__typename"] == "LaunchRunSuccess", again
        rerun = RunId(again["run"]["runId"])
        assert str(bench.wait_for(rerun)["parent_run_id"]) == failed
        assert {step for _, step in bench.events(rerun) if step} == {"share"}


@pytest.mark.browser
def test_the_ui_draws_the_montage_run(bench: Bench, web: Web) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium: install Debian's package `chromium`")
    from playwright.sync_api import sync_playwright

    example = Path(__file__).parents[2] / "examples" / "wfcommons" / "montage.yaml"
    run_id = bench.start(bench.publish(parse(example.read_bytes(), bench.limits)))
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "succeeded"
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{web.url}/runs/{run_id}")
        page.get_by_text("Succeeded (310)").wait_for()
        page.get_by_text("Errored (0)").wait_for()
        # The Gantt chart draws the boxes in view, and the log ends with the run's success.
        page.get_by_text("mProject_ID").first.wait_for()
        page.get_by_text("RUN_SUCCESS").first.wait_for()
        browser.close()


@pytest.mark.parametrize(("leave_seconds", "status"), [(3_600, "running"), (1, "waiting")])
def test_the_ui_cancels_a_run(bench: Bench, web: Web, leave_seconds: float, status: str) -> None:
    version = bench.publish(graph({"wait": {"type": "work.sleep", "with": {"seconds": 60}}}))
    run_id = bench.start(version)
    with bench.worker(leave_seconds=leave_seconds):
        bench.wait_for(run_id, status)
        assert web.ask(TERMINATE, run=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        assert bench.wait_for(run_id)["status"] == "cancelled"
