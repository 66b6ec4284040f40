"""n8n: workflows on PostgreSQL, started by a webhook that answers when the last node is done."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.engines.base import Engine
from bench.engines.driver import stopped
from bench.engines.peers import Setting
from bench.engines.web import HOST, free_port, repeated, run, spread, wait_until_ready
from bench.support.graphs import Work
from bench.support.http import Http, HttpError
from bench.support.installing import NODE, node_environment
from bench.support.processes import Child

_VERSION: Final = "1.123.81"
# As its own manifest names it, the package is not on npm.
_OVERRIDES: Final = {"xlsx": "0.18.5"}
_SIZES: Final = (1, 10)
_CONNECTIONS: Final = 16
_READY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
_COMMAND_SECONDS: Final = 120


class N8n:
    """One n8n process. Executions are saved, as by default."""

    slow = False

    def __init__(self, engine: str, base: str, child: Child) -> None:
        self.name = self.program = f"n8n, {engine} expressions"
        self.how = (
            f"{_VERSION} on PostgreSQL, executions saved, {engine} expression engine, a Set node a "
            f"node; a run is one call of a webhook, {_CONNECTIONS} at once under load"
        )
        self._base = base
        self._child = child

    def one_by_one(self, work: Work, count: int, seconds: float) -> list[float]:
        async def measured() -> list[float]:
            async with Http(self._base) as http:
                return await repeated(lambda: _once(http, work), count, seconds)

        return run(measured())

    def at_once(self, work: Work, count: int) -> float:
        began = time.perf_counter()
        run(spread(self._base, lambda http: _request(http, work), count, _CONNECTIONS))
        return time.perf_counter() - began

    def stopped(self) -> AbstractContextManager[None]:
        return stopped(self._child)


def start(setting: Setting) -> list[Engine]:
    modules = node_environment("n8n", {"n8n": _VERSION, **NODE}, _OVERRIDES) / "node_modules"
    program = (modules / ".bin" / "node", modules / "n8n" / "bin" / "n8n")
    return [_start(setting, program, engine) for engine in ("default", "legacy")]


def _start(setting: Setting, program: tuple[Path, Path], engine: str) -> N8n:
    folder = setting.folder / engine
    folder.mkdir()
    port = free_port()
    database = setting.database_name(engine)
    setting.services.database(database)
    environment = {
        **os.environ,
        "N8N_USER_FOLDER": str(folder),
        "N8N_LISTEN_ADDRESS": HOST,
        "N8N_PORT": str(port),
        "N8N_RUNNERS_BROKER_PORT": str(free_port()),
        "N8N_DIAGNOSTICS_ENABLED": "false",
        "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
        "N8N_TEMPLATES_ENABLED": "false",
        "DB_TYPE": "postgresdb",
        "DB_POSTGRESDB_HOST": setting.services.postgres_folder,
        "DB_POSTGRESDB_USER": "graphwright",
        "DB_POSTGRESDB_DATABASE": database,
        **({"N8N_EXPRESSION_ENGINE": engine} if engine != "default" else {}),
    }
    flows = folder / "workflows.json"
    flows.write_text(json.dumps([_workflow(nodes) for nodes in _SIZES]), "utf-8")
    for command in (
        ("import:workflow", f"--input={flows}"),
        ("update:workflow", "--all", "--active=true"),
    ):
        _run(program, command, environment)
    child = setting.processes.start(f"n8n-{engine}", program, environment=environment)
    base = f"http://{HOST}:{port}"
    wait_until_ready(f"{base}/healthz", child)
    run(_webhooks(base))
    return N8n(engine, base, child)


def _run(
    program: tuple[Path, Path], command: tuple[str, ...], environment: Mapping[str, str]
) -> None:
    done = subprocess.run(
        (*program, *command),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-500:]}")


async def _webhooks(base: str) -> None:
    """Return when the workflows' webhooks answer, which is some time after the process does."""
    deadline = time.monotonic() + _READY_SECONDS
    for nodes in _SIZES:
        while True:
            async with Http(base) as http:
                try:
                    await _once(http, Work("transform", nodes))
                    break
                except HttpError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(_POLL_SECONDS)  # noqa: ASYNC251 - nothing else runs on this loop


async def _once(http: Http, work: Work) -> float:
    began = time.perf_counter()
    answer = await http.send(_request(http, work))
    took = time.perf_counter() - began
    if answer.json()["value"] != work.nodes:
        raise RuntimeError(f"a wrong answer: {answer.body[:200]!r}")
    return took


def _request(http: Http, work: Work) -> bytes:
    return http.post(f"/webhook/{work.name}", b"{}")


def _workflow(nodes: int) -> dict[str, Any]:
    work = Work("transform", nodes)
    webhook: dict[str, Any] = {
        "httpMethod": "POST",
        "path": work.name,
        "responseMode": "lastNode",
        "options": {},
    }
    first = _node("Webhook", 0, "n8n-nodes-base.webhook", 2, webhook)
    made = [first | {"webhookId": work.name}]
    for number in range(1, nodes + 1):
        value = "={{ $json.value + 1 }}" if number > 1 else "={{ 1 }}"
        field = {"id": f"f{number}", "name": "value", "type": "number", "value": value}
        given = {"assignments": {"assignments": [field]}, "options": {}}
        made.append(_node(f"n{number}", number, "n8n-nodes-base.set", 3.4, given))
    names = [node["name"] for node in made]
    edges = {
        before: {"main": [[{"node": after, "type": "main", "index": 0}]]}
        for before, after in pairwise(names)
    }
    return {
        "id": f"bench{nodes}",
        "name": work.name,
        "active": False,
        "nodes": made,
        "connections": edges,
        "settings": {"executionOrder": "v1"},
    }


def _node(name: str, place: int, kind: str, release: float, given: object) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "type": kind,
        "typeVersion": release,
        "position": [place * 200, 0],
        "parameters": given,
    }
