"""The command line against a running stack, and what it says when there is none."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import jwt
import pytest

from graphwright.client import Client
from tests.graphwright.conftest import Stack, new_stack
from tests.services import free_port

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

DOUBLE = """
apiVersion: graphwright/v1
kind: Graph
metadata: {name: double}
params: {type: object, properties: {n: {type: integer, default: 21}}}
nodes:
  twice: {type: data.transform, with: {value: "${{ params.n * 2 }}"}}
outputs: {n: "${{ nodes.twice.output }}"}
"""
SLOW = """
apiVersion: graphwright/v1
kind: Graph
metadata: {name: slow}
params: {type: object, properties: {seconds: {type: number, default: 600}}}
nodes:
  wait: {type: work.sleep, with: {seconds: "${{ params.seconds }}"}}
"""
BROKEN = """
apiVersion: graphwright/v1
kind: Graph
metadata: {name: broken}
nodes:
  a: {type: no.such, with: {}}
  b: {type: data.transform, needs: [absent], with: {value: 1}}
"""


@pytest.fixture
def documents(tmp_path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, text in {"double": DOUBLE, "slow": SLOW, "broken": BROKEN}.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, "utf-8")
        found[name] = str(path)
    return found


def test_a_graph_is_applied_shown_and_listed(stack: Stack, documents: dict[str, str]) -> None:
    applied = stack("graph", "apply", documents["double"])
    assert applied.returncode == 0, applied.stderr
    graph = json.loads(applied.stdout)
    again = stack("graph", "apply", documents["double"])
    assert json.loads(again.stdout)["version"] == graph["version"]
    assert "unchanged" in again.stderr
    assert json.loads(stack("graph", "show", "double").stdout)["graph_id"] == graph["graph_id"]
    listed = [json.loads(line) for line in stack("graph", "list").stdout.splitlines()]
    assert graph["graph_id"] in {each["graph_id"] for each in listed}


def test_a_run_is_watched_to_its_end(stack: Stack, documents: dict[str, str]) -> None:
    stack("graph", "apply", documents["double"])
    done = stack("run", "start", "double", "--params", '{"n": 4}', "--watch")
    assert done.returncode == 0, done.stderr
    *events, run = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events][-1] == "run.succeeded"
    assert run["outputs"] == {"n": 8}
    assert json.loads(stack("run", "show", run["run_id"]).stdout) == run
    listed = stack("run", "list", "--graph", "double", "--status", "succeeded", "--limit", "1")
    assert json.loads(listed.stdout)["status"] == "succeeded"


def test_a_run_is_cancelled_and_watching_it_fails(stack: Stack, documents: dict[str, str]) -> None:
    stack("graph", "apply", documents["slow"])
    run_id = json.loads(stack("run", "start", "slow").stdout)["run_id"]
    assert stack("run", "cancel", run_id).returncode == 0
    watched = stack("run", "watch", run_id)
    assert watched.returncode == 1
    assert json.loads(watched.stdout.splitlines()[-1])["status"] == "cancelled"


def test_runs_and_graphs_are_paused_and_repeated(stack: Stack, documents: dict[str, str]) -> None:
    stack("graph", "apply", documents["double"])
    assert json.loads(stack("graph", "pause", "double").stdout)["paused"] is True
    run_id = json.loads(stack("run", "start", "double", "--params", '{"n": 4}').stdout)["run_id"]
    assert json.loads(stack("run", "pause", run_id).stdout)["status"] == "paused"
    assert json.loads(stack("graph", "resume", "double").stdout)["paused"] is False
    assert stack("run", "resume", run_id).returncode == 0
    assert stack("run", "watch", run_id).returncode == 0
    again = stack("run", "rerun", run_id, "--from", "twice", "--param", "n=5", "--watch")
    assert again.returncode == 0, again.stderr
    run = json.loads(again.stdout.splitlines()[-1])
    assert (run["parent_run_id"], run["outputs"]) == (run_id, {"n": 10})
    assert stack("run", "rerun", run_id, "--from", "twyce").returncode == 2
    assert stack("run", "rerun", run_id, "--from", "failed").returncode == 1
    assert stack("run", "list", "--status", "failed", "--error", "no_such").stdout == ""


def test_a_fault_has_its_pointer_and_exits_with_2(stack: Stack, documents: dict[str, str]) -> None:
    for how in ("apply", "validate"):
        said = stack("graph", how, documents["broken"], documents["double"])
        assert said.returncode == 2
        assert f"{documents['broken']}:/nodes/a/type: " in said.stderr
        assert f"{documents['broken']}:/nodes/b/needs/0: " in said.stderr
        assert "double" in said.stderr


def test_params_that_do_not_fit_exit_with_2(stack: Stack, documents: dict[str, str]) -> None:
    stack("graph", "apply", documents["double"])
    said = stack("run", "start", "double", "--params", '{"n": "many"}')
    assert said.returncode == 2
    assert "/params/n" in said.stderr
    assert stack("run", "start", "double", "--params", "[]").returncode == 2


def test_what_does_not_exist_exits_with_1(stack: Stack) -> None:
    for command in (("graph", "show", "absent"), ("run", "start", "absent")):
        said = stack(*command)
        assert (said.returncode, said.stdout) == (1, "")


def test_a_token_is_printed_alone(stack: Stack) -> None:
    said = stack("token", "--tenant", "brand-new", "--scopes", "runs:read", "--subject", "ci")
    claims = jwt.decode(said.stdout.strip(), options={"verify_signature": False})
    assert (claims["tenant"], claims["scope"], claims["sub"]) == ("brand-new", "runs:read", "ci")
    assert claims["exp"] - claims["iat"] == 12 * 3600
    assert said.stdout.count("\n") == 1
    assert stack("token", "--tenant", "Not A Name").returncode == 2


def test_watching_outlives_broken_connections(stack: Stack, documents: dict[str, str]) -> None:
    stack("graph", "apply", documents["slow"])
    found = stack.status()
    with (
        cutting_proxy(found["api"], after=1_400) as url,
        Client(url, found["token"]) as client,
        Client(found["api"], found["token"]) as direct,
    ):
        run_id = direct.runs.start("slow", {"seconds": 0.5})["run_id"]
        seen = [event["id"] for event in client.runs.events(run_id)]
        assert seen == [event["id"] for event in direct.runs.events(run_id)]


def test_without_a_stack_everything_exits_with_3() -> None:
    nowhere = new_stack()
    url = f"http://127.0.0.1:{free_port()}"
    for command in (("graph", "list"), ("run", "list"), ("status",), ("token", "--tenant", "a")):
        said = nowhere(*command, GRAPHWRIGHT_API_URL=url)
        assert said.returncode == 3, said.stderr
        assert said.stdout == ""
    assert nowhere("down").returncode == 0


@pytest.mark.parametrize("command", ["--help", "token --help", "run --help", "--version"])
def test_the_command_line_starts_without_dagster(command: str) -> None:
    program = (
        "import sys; from graphwright.cli import app\n"
        f"try: app({command.split()!r})\n"
        "finally: assert not {'dagster', 'fastapi', 'httpx', 'psycopg'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def cutting_proxy(target: str, *, after: int) -> Generator[str]:
    """A proxy that breaks each connection once it has passed on so many bytes of its answer."""
    to = urlsplit(target)
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(client: socket.socket) -> None:
        with (
            suppress(OSError),  # a client that has all that it wants does not wait for the rest
            client,
            socket.create_connection((to.hostname, to.port)) as server,
        ):
            server.sendall(client.recv(65_536))
            left = after
            while left and (part := server.recv(min(left, 4_096))):
                client.sendall(part)
                left -= len(part)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=pump, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--api-url", "notaurl", "run", "list"),
        ("--token", "é", "run", "list"),
        ("run", "start", "any", "--params", '{"n": NaN}'),
        ("run", "start", "any", "--params", "[]"),
        ("token", "--tenant", "t", "--hours", "1e300"),
    ],
)
def test_wrong_usage_exits_with_2_and_no_trace(stack: Stack, arguments: tuple[str, ...]) -> None:
    said = stack(*arguments)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    assert said.stdout == ""


def test_a_tenants_share_and_quotas(stack: Stack) -> None:
    stack("token", "--tenant", "weighty")
    said = stack("tenant", "set", "weighty", "--weight", "3", "--max-queued", "10")
    assert json.loads(said.stdout)["weight"] == 3
    stack("tenant", "set", "weighty", "--max-queued", "none")
    shown = json.loads(stack("tenant", "show", "weighty").stdout)
    assert (shown["weight"], shown["max_queued"]) == (3, None)
    listed = [json.loads(line) for line in stack("tenant", "list").stdout.splitlines()]
    assert shown in listed
    wrong = stack("tenant", "set", "weighty", "--weight", "0", "--max-graphs", "many")
    assert wrong.returncode == 2
    assert "--weight: bad_bound" in wrong.stderr and "--max-graphs: bad_bound" in wrong.stderr
    assert stack("tenant", "show", "nobody").returncode == 1
