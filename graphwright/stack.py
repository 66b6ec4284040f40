"""The local stack: databases, migrations, and the processes that make up an installation.

The order is drawn in docs/adr/0001-local-stack.md. Everything runs as a production installation
would: the same commands, told apart only by the environment that each process gets.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from rich.markup import escape

from foundation.database import migrate
from foundation.errors import GraphwrightError
from foundation.settings import Settings
from graphwright.access import reaching_database, tenant_token
from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey
from graphwright.guard import Guard
from graphwright.home import make_private, shipped
from graphwright.ports import PortClaims
from graphwright.rolelog import tail
from graphwright.stackfile import remove_stack, write_stack
from graphwright.supervisor import Service, Supervisor
from graphwright.terminal import Terminal

HOST = "127.0.0.1"
_READY_SECONDS = 120.0
_POLL_SECONDS = 0.1
_MAX_DEATHS = 3
# Whoever reads stack.json can read the signing key beside it: a short life would protect nothing.
_TOKEN_HOURS = 24.0 * 365
_LOG_LINES = 15
_NOT_FOR_CHILDREN = {"pid", "token", "dagster_url", "metrics"}
_OBSERVED = ("api", "hooks", "worker", "dispatcher")
# gRPC servers answer SIGTERM by serving on for minutes, on a port that they share.
_CODE_GRACE_SECONDS = 1.0
_API_GRACE_SECONDS = 12.0  # it gives requests 10
_DISPATCHER_GRACE_SECONDS = 15.0  # it gives the URLs that it is calling 10


class StackStartError(GraphwrightError):
    """A part of the stack did not come up; the message holds the end of its log."""

    code = "stack_start_failed"


class Stack:
    """One local stack in ``settings.state``, whose lock the caller holds.

    ``echo`` says whether the processes' output is shown as well as logged.
    """

    def __init__(self, settings: Settings, terminal: Terminal, *, echo: bool) -> None:
        self._settings = settings
        self._terminal = terminal
        self._echo = echo
        self._ports = PortClaims()
        self._guard = Guard()
        self._servers: list[EmbeddedPostgres | EmbeddedValkey] = []
        self._supervisor = Supervisor(
            self._logs, self._guard, self._sink, changed=self._write_if_known
        )
        self._values: dict[str, Any] = {}
        self.hurry = asyncio.Event()
        """Set it to stop without waiting for anything."""

    @property
    def values(self) -> Mapping[str, Any]:
        """What ``stack.json`` holds."""
        return self._values

    async def start(self) -> None:
        """Bring everything up to where the API answers and Dagster's code server listens.

        Raises StackStartError, ServerStartError and Unavailable.
        """
        state = self._settings.state
        for folder in (state, self._logs, state / "files"):
            make_private(folder)
        remove_stack(state)
        with self._terminal.step("PostgreSQL and Valkey"):
            database_url, redis_url = await asyncio.gather(
                self._server(self._settings.database_url, EmbeddedPostgres(state)),
                self._server(self._settings.redis_url, EmbeddedValkey(state)),
            )
        with self._terminal.step("migrations"), reaching_database():
            await asyncio.to_thread(migrate, database_url)
        self._values = self._decide(database_url, redis_url)
        self._values["token"] = await tenant_token(
            self._child_settings(), "default", hours=_TOKEN_HOURS
        )
        with self._terminal.step("Dagster's tables"):
            await self._run_to_end("migrate")
        with self._terminal.step("API, webhook receiver, worker, dispatcher and code server"):
            for role in ("api", "hooks", "worker", "dispatcher", "code"):
                self._supervisor.start(self._ours(role))
            hooks_url = f"http://{HOST}:{self._values['hooks_port']}"
            await asyncio.gather(
                self._ready("api", lambda: _answers(f"{self._values['api_url']}/readyz")),
                self._ready("hooks", lambda: _answers(f"{hooks_url}/readyz")),
                self._ready("code", lambda: _listens(self._values["code_port"])),
            )
        # Only now: they load the code location when they start, and show a fault if it is absent.
        for service in self._dagster():
            self._supervisor.start(service)
        self._write_if_known()

    async def wait_for_dagster(self) -> None:
        """Return when the Dagster UI answers."""
        await self._ready("dagster", lambda: _answers(f"{self._values['dagster_url']}/server_info"))

    async def stop(self) -> None:
        """Stop everything: workers drain first, the databases go last."""
        with self._terminal.step("stopping"):
            await self._supervisor.stop(["worker"], self.hurry)
            others = ["daemon", "api", "hooks", "dispatcher", "dagster", "code"]
            await self._supervisor.stop(others, self.hurry)
            for server in self._servers:
                pid = server.pid
                await asyncio.to_thread(server.stop)
                if pid is not None:
                    self._guard.forget(pid)
        remove_stack(self._settings.state)
        self._ports.close()
        self._guard.close()

    @property
    def _logs(self) -> Path:
        return self._settings.state / "logs"

    async def _server(self, given: str, server: EmbeddedPostgres | EmbeddedValkey) -> str:
        if given:
            return given
        self._servers.append(server)
        url = await asyncio.to_thread(server.start)
        assert server.pid is not None
        self._guard.watch(server.pid, signal.SIGINT)
        return url

    def _decide(self, database_url: str, redis_url: str) -> dict[str, Any]:
        settings = self._settings
        api_port = self._claim("API", settings.api_host, settings.api_port)
        dagster_port = self._claim("Dagster UI", HOST, settings.dagster_port)
        hooks_port = self._claim("webhook receiver", settings.hooks_host, settings.hooks_port)
        examples = shipped("examples")
        shipped_data = (examples / "data",) if examples else ()
        roots = settings.file_roots or (*shipped_data, settings.state / "files")
        shown = HOST if settings.api_host in {"0.0.0.0", "::", ""} else settings.api_host  # noqa: S104
        return {
            "pid": os.getpid(),
            "api_url": f"http://{f'[{shown}]' if ':' in shown else shown}:{api_port}",
            "database_url": database_url,
            "redis_url": redis_url,
            "api_port": api_port,
            "hooks_port": hooks_port,
            "hooks_public_url": settings.hooks_public_url or f"http://{HOST}:{hooks_port}",
            "code_port": self._claim("Dagster code server", HOST, settings.code_port),
            "dagster_port": dagster_port,
            "dagster_url": f"http://{HOST}:{dagster_port}",
            "metrics": self._metrics_urls(),
            "log_format": settings.log_format or "text",  # people read it on the terminal
            "file_roots": os.pathsep.join(str(root.absolute()) for root in roots),
        }

    def _metrics_urls(self) -> dict[str, str]:
        """Where each of our roles tells of itself: on ports from the wanted one on, or any."""
        host, wanted = self._settings.metrics_host, self._settings.metrics_port
        ports: dict[str, int] = {}
        for role in _OBSERVED:
            ports[role] = self._ports.claim(host, wanted)
            wanted = wanted and ports[role] + 1
        shown = f"[{host}]" if ":" in host else host
        return {role: f"http://{shown}:{port}" for role, port in ports.items()}

    def _claim(self, name: str, host: str, wanted: int) -> int:
        port = self._ports.claim(host, wanted)
        if wanted not in {0, port}:
            self._terminal.note(f"[yellow]port {wanted} of the {name} is busy; using {port}[/]")
        return port

    def _child_settings(self) -> Settings:
        given: dict[str, Any] = {**self._values, "state": self._settings.state}
        return Settings(**given)

    def _environment(self) -> dict[str, str]:
        """Ours, and what was decided: it must win over a stack.json and over our own variables."""
        decided = {
            f"GRAPHWRIGHT_{key.upper()}": str(value)
            for key, value in self._values.items()
            if key not in _NOT_FOR_CHILDREN
        }
        return {
            **os.environ,
            **decided,
            "GRAPHWRIGHT_METRICS_PORT": "0",  # no two processes can have the same one
            "GRAPHWRIGHT_TLS_CERTIFICATE_FILE": "",  # all is on loopback
            "GRAPHWRIGHT_TLS_KEY_FILE": "",
            "GRAPHWRIGHT_STATE": str(self._settings.state),
            "DAGSTER_HOME": str(self._settings.state / "dagster"),
            "PYTHONUNBUFFERED": "1",
            # The folder from which the stack was started must not shadow a module.
            "PYTHONSAFEPATH": "1",
        }

    def _ours(self, role: str) -> Service:
        grace = {
            "worker": self._settings.drain_seconds + 5.0,
            "api": _API_GRACE_SECONDS,
            "hooks": _API_GRACE_SECONDS,
            "dispatcher": _DISPATCHER_GRACE_SECONDS,
            "code": _CODE_GRACE_SECONDS,
        }[role]
        command = (sys.executable, "-m", "graphwright", role)
        environment = self._environment()
        if url := self._values["metrics"].get(role):
            environment["GRAPHWRIGHT_METRICS_PORT"] = url.rpartition(":")[2]
        return Service(role, command, environment, grace)

    def _dagster(self) -> tuple[Service, Service]:
        command = (sys.executable, "-m", "graphwright")
        return (
            Service("dagster", (*command, "webserver"), self._environment()),
            Service("daemon", (*command, "daemon"), self._environment()),
        )

    async def _run_to_end(self, command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "graphwright", command,
            env=self._environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self._guard.watch(process.pid)
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
            self._guard.forget(process.pid)
        if process.returncode:
            raise StackStartError(f"`{command}` failed:\n{output.decode('utf-8', 'replace')}")

    async def _ready(self, role: str, check: Callable[[], Awaitable[bool]]) -> None:
        async def poll() -> None:
            while not await check():
                if self._supervisor.deaths(role) >= _MAX_DEATHS:
                    raise StackStartError(f"{role} keeps ending:\n{self._log_end(role)}")
                await asyncio.sleep(_POLL_SECONDS)

        try:
            await asyncio.wait_for(poll(), _READY_SECONDS)
        except TimeoutError:
            raise StackStartError(
                f"{role} was not ready after {_READY_SECONDS:g} s:\n{self._log_end(role)}"
            ) from None

    def _log_end(self, role: str) -> str:
        return "\n".join(tail(self._logs / f"{role}.log", _LOG_LINES))

    def _sink(self, role: str, line: str) -> None:
        if self._echo:
            self._terminal.role_line(role, line)

    def _write_if_known(self) -> None:
        """Keep ``stack.json`` at what runs now, once there is something to connect to."""
        if not self._values:
            return
        pids = {"supervisor": os.getpid(), "guard": self._guard.pid, **self._supervisor.pids}
        for server in self._servers:
            if server.pid is not None:
                pids[server.name] = server.pid
        write_stack(self._settings.state, {**self._values, "pids": pids})


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as http:
        try:
            return (await http.get(url)).is_success
        except httpx.TransportError:
            return False


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


def describe(stack: Stack) -> list[str]:
    """Where things are, as lines of markup for the one who started the stack."""
    values = stack.values
    return [
        "",
        f"[bold]API[/]      {values['api_url']}  (documentation at {values['api_url']}/docs)",
        f"[bold]Webhooks[/] {values['hooks_public_url']}",
        f"[bold]Dagster[/]  {values['dagster_url']}",
        f"[bold]Token[/]    {escape(values['token'])}",
    ]
