"""Ours, one role at a time, over a new database: what only accepts, or only dispatches."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.engines.graphwright import Graphwright, own_environment
from bench.engines.web import HOST, free_port, wait_until_ready
from bench.support.processes import Child, Processes

_SERVERS: Final = ("api", "hooks")


class Roles:
    """Processes of ours, each with one role. ``api`` is the first, and ``client`` is its client."""

    def __init__(
        self, processes: Processes, folder: Path, environment: Mapping[str, str], name: str
    ) -> None:
        self._processes = processes
        self._name = name
        self._urls = {role: f"http://{HOST}:{free_port()}" for role in _SERVERS}
        ports = {
            f"GRAPHWRIGHT_{role.upper()}_PORT": str(urlsplit(url).port)
            for role, url in self._urls.items()
        }
        self._environment = {**own_environment(folder), **environment, **ports}
        self._running: dict[str, Child] = {}
        self._command("migrate")
        values = {
            "api_url": self._urls["api"],
            "token": self._command("token", "--tenant", "default"),
            "database_url": environment["GRAPHWRIGHT_DATABASE_URL"],
        }
        self.client = Graphwright(self.start("api"), folder, values)

    def start(self, role: str) -> Child:
        """Start a role. Raises RuntimeError with the end of its log if it does not come up."""
        child = self._processes.start(
            f"{self._name}-{role}",
            (sys.executable, "-m", "graphwright", role),
            environment=self._environment,
        )
        self._running[role] = child
        if role in self._urls:
            wait_until_ready(f"{self._urls[role]}/readyz", child)
        return child

    def pid(self, role: str) -> int:
        """The process id of a role that runs."""
        return self._running[role].pid

    def end(self, role: str) -> None:
        self._processes.end(self._running.pop(role))

    def close(self) -> None:
        """End all that run."""
        for role in reversed(list(self._running)):
            self.end(role)

    def _command(self, *arguments: str) -> str:
        done = subprocess.run(
            (sys.executable, "-m", "graphwright", *arguments),
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{arguments[0]} failed: {done.stderr}")
        return done.stdout.strip()
