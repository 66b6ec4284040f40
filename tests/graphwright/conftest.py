"""A real local stack, as ``graphwright up --detach`` starts it, and the command line against it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import forking

_UP_SECONDS = 240
# Any free port: other stacks may run on this machine.
_ANY_PORTS = {f"GRAPHWRIGHT_{name}_PORT": "0" for name in ("API", "HOOKS", "CODE", "DAGSTER")}


@dataclass(frozen=True)
class Stack:
    """A state folder, with the command line that looks at it."""

    state: Path
    environment: dict[str, str] = field(repr=False)

    def __call__(
        self, *arguments: str, timeout: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return forking.run(arguments, {**self.environment, **environment}, timeout=timeout)

    def up(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """As a user starts it, and all of its processes."""
        return subprocess.run(
            [sys.executable, "-m", "graphwright", "up", "--detach"],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=_UP_SECONDS,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        return json.loads(self("status", "--json").stdout)

    def http(self, tenant: str = "default") -> httpx.Client:
        found = self.status()
        token = self("token", "--tenant", tenant).stdout.strip()
        return httpx.Client(
            base_url=f"{found['api']}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )


def new_stack() -> Stack:
    """A stack that is not started yet, in a folder with a path short enough for Unix sockets."""
    state = Path(tempfile.mkdtemp(prefix="gw-")) / "state"
    own = {key: value for key, value in os.environ.items() if not key.startswith("GRAPHWRIGHT_")}
    return Stack(state, {**own, **_ANY_PORTS, "GRAPHWRIGHT_STATE": str(state)})


def discard(stack: Stack) -> None:
    stack("down", timeout=120)
    shutil.rmtree(stack.state.parent)


@pytest.fixture(scope="session")
def started() -> Generator[tuple[Stack, subprocess.CompletedProcess[str]]]:
    """The stack of this session and what ``up`` said."""
    stack = new_stack()
    try:
        yield stack, stack.up()
    finally:
        discard(stack)


@pytest.fixture(scope="session")
def stack(started: tuple[Stack, subprocess.CompletedProcess[str]]) -> Stack:
    """The stack of this session, running."""
    found, said = started
    assert found("status").returncode == 0, said.stderr
    return found
