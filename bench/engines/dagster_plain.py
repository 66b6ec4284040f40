"""Plain Dagster of the version that ours stands on, as its documentation sets it up."""

import asyncio
import json
import os
import random
import time
import uuid
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
_SENSOR_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 60.0
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
_START_SENSOR: Final = """
mutation Start($sensor: String!) {
  startSensor(sensorSelector: {
    repositoryLocationName: "bench", repositoryName: "__repository__", sensorName: $sensor
  }) { __typename ... on Sensor { id } ... on PythonError { message } }
}
"""
_STOP_SENSOR: Final = """
mutation Stop($id: String!) { stopSensor(id: $id) { __typename } }
"""
_STARTED: Final = """
query Started($key: String!) {
  runsOrError(filter: {tags: [{key: "dagster/run_key", value: $key}]}) {
    ... on Runs { results { startTime } }
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

    def __init__(
        self,
        name: str,
        how: str,
        suffix: str,
        port: int,
        children: list[Child],
        dropped: Path,
    ) -> None:
        self.name = name
        self.how = how
        self._suffix = suffix
        self._dropped = dropped
        self._base = f"http://{HOST}:{port}"
        self._children = children

    def one_by_one(self, work: Work, count: int, seconds: float) -> list[float]:
        async def measured() -> list[float]:
            async with Http(self._base) as http:
                return await repeated(lambda: self._once(http, work), count, seconds)

        return run(measured())

    def at_once(self, work: Work, count: int) -> float:
        raise NotImplementedError("a single run takes seconds")

    def sensed(self, count: int) -> list[float]:
        """Seconds from the dropping of a file that a sensor looks for to the start of its run."""

        async def measured() -> list[float]:
            async with Http(self._base) as http:
                sensor = {"sensor": f"sensor_of_transform_1{self._suffix}"}
                started = (await _graphql(http, _START_SENSOR, sensor))["startSensor"]
                if "id" not in started:
                    raise RuntimeError(f"no sensor: {started}")
                try:
                    return [await self._drop(http) for _ in range(count)]
                finally:
                    await _graphql(http, _STOP_SENSOR, {"id": started["id"]})

        return run(measured())

    def stopped(self) -> AbstractContextManager[None]:
        return stopped(*self._children)

    async def _drop(self, http: Http) -> float:
        # Not in step with the daemon.
        await asyncio.sleep(random.uniform(0, _SENSOR_SECONDS))
        key = str(uuid.uuid4())
        dropped_at = time.time()
        (self._dropped / key).touch()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
            found = (await _graphql(http, _STARTED, {"key": key}))["runsOrError"]["results"]
            if found and found[0]["startTime"]:
                return found[0]["startTime"] - dropped_at
        raise RuntimeError("the sensor has started no run")

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
    dropped = setting.folder / "dropped"
    dropped.mkdir()
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(setting.folder),
        "BENCH_DROPPED": str(dropped),
    }
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
        DagsterPlain(name, f"{how}; {executor}", suffix, port, children, dropped)
        for name, executor, suffix in (
            ("dagster, in process", "in_process executor", "_in_process"),
            ("dagster", "the default executor, a process a step", ""),
        )
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
