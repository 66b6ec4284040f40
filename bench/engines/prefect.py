"""Prefect: its server on PostgreSQL, and a deployment that is started over its API."""

import asyncio
import json
import os
import time
from contextlib import AbstractContextManager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from bench.engines.base import Engine
from bench.engines.driver import stopped
from bench.engines.peers import PROGRAMS, Setting
from bench.engines.web import HOST, free_port, repeated, run, wait_until_ready
from bench.support import trigrams
from bench.support.graphs import Work
from bench.support.http import Http
from bench.support.installing import python_environment
from bench.support.processes import Child

_VERSION: Final = "3.8.8"
# Its server does not start with later ones of FastAPI.
_REQUIREMENTS: Final = (f"prefect=={_VERSION}", "fastapi==0.150.0", "asyncpg")
_POLL_SECONDS: Final = 0.05
_RUNNER_SECONDS: Final = 1
_ENDS: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_DEPLOYMENT: Final = "/api/deployments/name/chain/bench"


class Prefect:
    """A server and a process that serves one deployment."""

    name = program = "prefect"
    slow = True
    how = (
        f"{_VERSION}, server on PostgreSQL; runs of a served deployment, created over REST and "
        f"polled each {_POLL_SECONDS * 1000:.0f} ms; its runner looks for work each "
        f"{_RUNNER_SECONDS} s (the default is 10 s)"
    )

    def __init__(self, base: str, deployment: str, children: list[Child]) -> None:
        self._base = base
        self._deployment = deployment
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
        body = json.dumps({"parameters": {"nodes": work.nodes}}).encode()
        path = f"/api/deployments/{self._deployment}/create_flow_run"
        run_id = (await http.send(http.post(path, body))).json()["id"]
        status = ""
        while status not in _ENDS:
            await asyncio.sleep(_POLL_SECONDS)
            found = (await http.send(http.get(f"/api/flow_runs/{run_id}"))).json()
            status = found["state_type"]
        if status != "COMPLETED":
            raise RuntimeError(f"the run ended with {status}")
        return time.perf_counter() - began


def start(setting: Setting) -> list[Engine]:
    python = python_environment("prefect", _REQUIREMENTS)
    port = free_port()
    base = f"http://{HOST}:{port}"
    database = setting.database()
    trigrams.lend(setting.services, database, setting.folder / "pg_trgm")
    url = urlunsplit(urlsplit(database)._replace(scheme="postgresql+asyncpg"))
    environment = {
        **os.environ,
        "PREFECT_HOME": str(setting.folder),
        "PREFECT_API_URL": f"{base}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": url,
        "PREFECT_RUNNER_POLL_FREQUENCY": str(_RUNNER_SECONDS),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    serve = (python, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port))
    server = setting.processes.start("prefect-server", serve, environment=environment)
    wait_until_ready(f"{base}/api/health", server)
    flow = (python, PROGRAMS / "prefect_flow.py")
    runner = setting.processes.start("prefect-flow", flow, environment=environment)
    wait_until_ready(f"{base}{_DEPLOYMENT}", runner)
    return [Prefect(base, run(_deployment_id(base)), [server, runner])]


async def _deployment_id(base: str) -> str:
    async with Http(base) as http:
        return (await http.send(http.get(_DEPLOYMENT))).json()["id"]
