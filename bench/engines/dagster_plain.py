"""Plain Dagster of the version that ours stands on, as its documentation sets it up."""

import asyncio
import json
import os
import time
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.engines.base import Engine
from bench.engines.driver import stopped
from bench.engines.peers import PROGRAMS, Setting
from bench.engines.web import HOST, free_port, repeated, run, wait_until_ready
from bench.support.graphs import Work
from bench.support.http import Http
from bench.support.installing import python_environment
from bench.support.processes import Child

_POLL_SECONDS: Final = 0.05
_ENDS: Final = {"SUCCESS", "FAILURE", "CANCELED"}
_LOCATION: Final = "bench"

_LAUNCH: Final = """
mutation Launch($job: String!) {
  launchRun(executionParams: {selector: {
    repositoryLocationName: "bench", repositoryName: "__repository__", jobName: $job
  }}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
_STATUS: Final = """
query Status($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }
"""


class DagsterPlain:
    """A webserver and a daemon; runs are launched and followed over GraphQL."""

    program = "dagster"
    slow = True

    def __init__(self, name: str, how: str, suffix: str, port: int, children: list[Child]) -> None:
        self.name = name
        self.how = how
        self._suffix = suffix
        self._base = f"http://{HOST}:{port}"
        self._children = children

    def one_by_one(self, work: Work, count: int, seconds: float) -> list[float]:
        async def measured() -> list[float]:
            async with Http(self._base) as http:
                return await repeated(lambda: self._once(http, work), count, seconds)

        return run(measured())

    def at_once(self, work: Work, count: int) -> float:
        raise NotImplementedError("a single run takes seconds")

    def stopped(self) -> AbstractContextManager[None]:
        return stopped(*self._children)

    async def _once(self, http: Http, work: Work) -> float:
        began = time.perf_counter()
        job = f"{work.kind}_{work.nodes}{self._suffix}"
        launched = (await _graphql(http, _LAUNCH, {"job": job}))["launchRun"]
        if "run" not in launched:
            raise RuntimeError(f"not launched: {launched}")
        status = ""
        while status not in _ENDS:
            await asyncio.sleep(_POLL_SECONDS)
            found = await _graphql(http, _STATUS, {"run": launched["run"]["runId"]})
            status = found["runOrError"]["status"]
        if status != "SUCCESS":
            raise RuntimeError(f"the run ended with {status}")
        return time.perf_counter() - began


def start(setting: Setting) -> list[Engine]:
    release, postgres = version("dagster"), version("dagster-postgres")
    own = [f"dagster=={release}", f"dagster-webserver=={release}", f"dagster-postgres=={postgres}"]
    python = python_environment("dagster", [*own, "sqlalchemy<2.1"])
    _write_home(setting)
    port = free_port()
    environment = {**os.environ, "DAGSTER_HOME": str(setting.folder)}
    commands: dict[str, tuple[str | Path, ...]] = {
        "dagster-web": ("-m", "dagster_webserver", "-h", HOST, "-p", str(port)),
        "dagster-daemon": ("-m", "dagster._daemon", "run"),
    }
    children: list[Child] = []
    for name, command in commands.items():
        whole = (python, *command, "-w", setting.folder / "workspace.yaml")
        children.append(setting.processes.start(name, whole, environment=environment))
    wait_until_ready(f"http://{HOST}:{port}/server_info", children[0])
    how = (
        f"{release}, webserver and daemon with PostgreSQL storage; runs launched over GraphQL and "
        f"polled each {_POLL_SECONDS * 1000:.0f} ms"
    )
    return [
        DagsterPlain(
            "dagster, in process", f"{how}; in_process executor", "_in_process", port, children
        ),
        DagsterPlain(
            "dagster", f"{how}; the default executor, a process a step", "", port, children
        ),
    ]


def _write_home(setting: Setting) -> None:
    instance = {
        "storage": {"postgres": {"postgres_url": setting.database()}},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }
    location = {"relative_path": str(PROGRAMS / "dagster_jobs.py"), "location_name": _LOCATION}
    # JSON is YAML.
    files = {"dagster.yaml": instance, "workspace.yaml": {"load_from": [{"python_file": location}]}}
    for name, content in files.items():
        (setting.folder / name).write_text(json.dumps(content), "utf-8")


async def _graphql(http: Http, query: str, variables: dict[str, Any]) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    answer = (await http.send(http.post("/graphql", body))).json()
    if "errors" in answer:
        raise RuntimeError(str(answer["errors"])[:500])
    return answer["data"]
