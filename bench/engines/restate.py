"""Restate: durable execution with a log of its own, and a service in TypeScript's runtime."""

import asyncio
import json
import os
import shutil
import time
from contextlib import AbstractContextManager
from typing import Final

from bench.engines.base import Engine
from bench.engines.driver import stopped
from bench.engines.peers import PROGRAMS, Setting
from bench.engines.web import HOST, free_port, repeated, run, spread, wait_until_ready
from bench.support.graphs import Work
from bench.support.http import Http
from bench.support.installing import NODE, node_environment
from bench.support.processes import Child

_VERSION: Final = "1.7.12"
_SDK: Final = "1.17.2"
_PACKAGES: Final = {
    "@restatedev/restate-server": _VERSION,
    "@restatedev/restate-sdk": _SDK,
    **NODE,
}
_CONNECTIONS: Final = 32
_REGISTER_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2


class Restate:
    """The server and the service; a run is a request to the ingress, which answers at its end."""

    name = program = "restate"
    slow = False
    how = (
        f"{_VERSION} with its own log (not PostgreSQL; fsync is on by default), a service on "
        f"Node.js with SDK {_SDK}, a `ctx.run` a node; a run is one HTTP call to the ingress, "
        f"{_CONNECTIONS} at once under load"
    )

    def __init__(self, base: str, children: list[Child]) -> None:
        self._base = base
        self._children = children

    def one_by_one(self, work: Work, count: int, seconds: float) -> list[float]:
        async def measured() -> list[float]:
            async with Http(self._base) as http:
                request = _request(http, work)

                async def once() -> float:
                    began = time.perf_counter()
                    await http.send(request)
                    return time.perf_counter() - began

                return await repeated(once, count, seconds)

        return run(measured())

    def at_once(self, work: Work, count: int) -> float:
        began = time.perf_counter()
        run(spread(self._base, lambda http: _request(http, work), count, _CONNECTIONS))
        return time.perf_counter() - began

    def stopped(self) -> AbstractContextManager[None]:
        return stopped(*self._children)


def start(setting: Setting) -> list[Engine]:
    installed = node_environment("restate", _PACKAGES) / "node_modules"
    (setting.folder / "node_modules").symlink_to(installed)
    shutil.copy(PROGRAMS / "restate_service.mjs", setting.folder)
    fabric, ingress, admin, own = (free_port() for _ in range(4))
    environment = {
        **os.environ,
        "PATH": f"{installed / '.bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RESTATE_BASE_DIR": str(setting.folder / "data"),
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_IP": HOST,
        "RESTATE_BIND_PORT": str(fabric),
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    program = (installed / ".bin" / "restate-server", "--no-logo")
    server = setting.processes.start("restate", program, environment=environment)
    service = setting.processes.start(
        "restate-service",
        (installed / ".bin" / "node", setting.folder / "restate_service.mjs", str(own)),
        environment=environment,
    )
    wait_until_ready(f"http://{HOST}:{admin}/health", server)
    wait_until_ready(f"http://{HOST}:{ingress}/restate/health", server)
    run(_register(f"http://{HOST}:{admin}", f"http://{HOST}:{own}"))
    return [Restate(f"http://{HOST}:{ingress}", [server, service])]


async def _register(admin: str, service: str) -> None:
    """Tell the server of the service. Its HTTP client refuses until the service listens."""
    body = json.dumps({"uri": service}).encode()
    deadline = time.monotonic() + _REGISTER_SECONDS
    while True:
        try:
            async with Http(admin) as http:
                await http.send(http.post("/deployments", body))
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_POLL_SECONDS)


def _request(http: Http, work: Work) -> bytes:
    return http.post("/bench/chain", json.dumps({"nodes": work.nodes}).encode())
