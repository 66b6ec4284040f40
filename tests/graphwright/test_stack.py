"""``graphwright up`` with everything real: databases, processes, examples."""

import itertools
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.graphwright.conftest import Stack, discard, new_stack

ROOT = Path(__file__).parent.parent.parent
ROLES = {
    "supervisor", "guard", "postgres", "valkey", "api", "hooks", "worker", "dispatcher", "code",
    "dagster", "daemon",
}  # fmt: skip

# One stack for all of these, wherever pytest-xdist puts them.
pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]


def test_up_runs_every_example(started: tuple[Stack, subprocess.CompletedProcess[str]]) -> None:
    _, said = started
    assert said.returncode == 0, said.stderr
    assert said.stdout == ""
    examples = len(list((ROOT / "examples").rglob("*.yaml")))
    assert examples >= 3
    assert said.stderr.count("succeeded in ") == examples
    assert "Ready." in said.stderr


def test_status_says_where_everything_is(stack: Stack) -> None:
    found = stack.status()
    assert set(found) == {"state", "api", "hooks", "dagster", "metrics", "token", "pids"}
    assert found["state"] == str(stack.state)
    until(lambda: get(f"{found['hooks']}/readyz").is_success)
    assert set(found["pids"]) == ROLES
    # A role's first process is its own; the others are its children, which come and go.
    assert all(psutil.pid_exists(pids[0]) for pids in found["pids"].values())
    assert len(found["pids"]["postgres"]) > 1
    until(lambda: get(f"{found['api']}/readyz").is_success)
    headers = {"Authorization": f"Bearer {found['token']}"}
    assert get(f"{found['api']}/api/v1/graphs", headers).is_success


def get(url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.get(url, headers=headers, timeout=60, trust_env=False)


def test_nobody_else_may_read_the_state(stack: Stack) -> None:
    # The group's bits are the mask of the entry that lets PostgreSQL's user through, under root.
    assert stat.S_IMODE(stack.state.stat().st_mode) & 0o666 == 0o600
    for name in ("stack.json", "signing.key"):
        assert stat.S_IMODE((stack.state / name).stat().st_mode) == 0o600


def leaders(stack: Stack) -> dict[str, int]:
    """Each role's own process; those that it starts in turn come and go."""
    return {role: pids[0] for role, pids in stack.status()["pids"].items()}


def test_a_second_up_says_that_one_runs_already(stack: Stack) -> None:
    before = leaders(stack)
    said = stack.up()
    assert said.returncode == 1
    assert "already running" in said.stderr
    assert str(before["supervisor"]) in said.stderr
    assert leaders(stack) == before


def test_dagster_shows_the_graphs_that_ran(stack: Stack) -> None:
    query = (
        "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError {"
        " ... on RepositoryLocation { name repositories { jobs { name } } }"
        " ... on PythonError { message } } } } } }"
    )

    def jobs() -> list[str]:
        url = f"{stack.status()['dagster']}/graphql"
        answer = httpx.post(url, json={"query": query}, timeout=60, trust_env=False)
        (entry,) = answer.json()["data"]["workspaceOrError"]["locationEntries"]
        location = entry["locationOrLoadError"]
        assert location.get("message") is None
        assert location["name"] == "graphwright"
        return [job["name"].split("__")[0] for job in location["repositories"][0]["jobs"]]

    # They were published after the Dagster UI had read the location; nobody pressed reload.
    until(lambda: {"github_digest", "penguins", "montage"} <= set(jobs()))


@pytest.mark.parametrize("role", ["worker", "code"])
def test_one_that_is_killed_is_started_again(stack: Stack, role: str) -> None:
    first = stack.status()["pids"][role][0]
    os.kill(first, signal.SIGKILL)
    until(lambda: stack.status()["pids"].get(role, [first])[:1] not in ([], [first]))
    assert "ended by SIGKILL" not in (stack.state / "logs" / f"{role}.log").read_text("utf-8")


def test_two_stacks_side_by_side_and_a_killed_supervisor_leaves_nothing(stack: Stack) -> None:
    busy, before = stack.status(), leaders(stack)
    url: str = busy["api"]
    port = str(urlsplit(url).port)
    other = new_stack()
    try:
        said = other.up(GRAPHWRIGHT_API_PORT=port)
        assert said.returncode == 0, said.stderr
        assert f"port {port} of the API is busy" in said.stderr
        found = other.status()
        assert found["api"] != busy["api"]
        assert leaders(stack) == before

        everything = list(_processes(found["pids"]))
        os.kill(found["pids"]["supervisor"][0], signal.SIGKILL)
        until(lambda: not any(_lives(each) for each in everything))

        gone = other("status")
        assert gone.returncode == 3
        assert "no stack runs" in gone.stderr
        assert other("down").returncode == 0
        assert leaders(stack) == before
    finally:
        discard(other)


def test_what_does_not_start_is_reported_and_leaves_nothing() -> None:
    broken = new_stack()
    try:
        said = broken.up(GRAPHWRIGHT_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
        assert said.returncode == 1
        assert "127.0.0.1" in said.stderr
        assert broken("status").returncode == 3
    finally:
        discard(broken)


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _processes(pids: dict[str, list[int]]) -> Iterator[psutil.Process]:
    """Those that still are there: a connection's process of PostgreSQL may have ended by now."""
    for pid in itertools.chain.from_iterable(pids.values()):
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
