"""Runs in containers of their own, through a real Docker-compatible socket; skipped, visibly, where
none answers. The image has a stand-in for ``graphwright``: what is tested is what it is given."""

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import docker
import pytest
from dagster import DagsterInstance, DagsterRun
from dagster_docker import DockerRunLauncher

from dynamic_jobs.launcher import GraphwrightRunLauncher
from dynamic_jobs.placing import docker as placing_docker
from dynamic_jobs.placing.base import Placed, PlacementFailed, PlacementRequest, removed
from dynamic_jobs.placing.docker import DockerPlatform, container_name, container_options
from dynamic_jobs.platforms.containers import Containers
from foundation.ids import GraphId, RunId, new_id
from graph_defs.placement import Placement
from graph_defs.placement_policy import PlacementPolicy
from tests.containers.image import IMAGE, make_image
from tests.containers.socket import docker_socket
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value

ENDLESS = "trap 'exit 0' TERM; touch /here; id -u; while true; do sleep 0.05; done"

# Dagster's launcher leaves its client open.
pytestmark = [
    pytest.mark.xdist_group("containers"),
    pytest.mark.filterwarnings(
        "ignore:.*ResourceWarning.*:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(scope="module")
def socket() -> Generator[str]:
    with docker_socket() as host:
        make_image(host)
        yield host


@pytest.fixture
def engine(socket: str, monkeypatch: pytest.MonkeyPatch) -> Generator[docker.DockerClient]:
    monkeypatch.setenv("DOCKER_HOST", socket)
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def instance(bench: Bench) -> Generator[DagsterInstance]:
    with DagsterInstance.get() as instance:
        yield instance


def requested(bench: Bench, instance: DagsterInstance) -> PlacementRequest:
    version = bench.publish(graph({"one": value(1)}, name="placed"))
    run = instance.get_run_by_id(bench.start(version))
    assert run is not None
    placement = Placement.model_validate(
        {"isolation": "docker", "resources": {"cpu": "500m", "memory": "64Mi"}}
    )
    graph_id = GraphId(version.graph_id)
    policy = PlacementPolicy.model_validate({})
    return PlacementRequest(run, TENANT, graph_id, "placed", 1, False, placement, policy)


def platform(instance: DagsterInstance, script: str) -> DockerPlatform:
    variables = [f"GRAPHWRIGHT_TEST_SCRIPT={script}"]
    kwargs = {"network_mode": "none", "privileged": True, "labels": {"team": "ours"}}
    launcher = GraphwrightRunLauncher(
        docker={"image": IMAGE, "env_vars": variables, "container_kwargs": kwargs}
    )
    launcher.register_instance(instance)
    found = launcher.platform("docker")
    assert isinstance(found, DockerPlatform)
    return found


def until_gone(where: DockerPlatform, placed: Placed) -> None:
    """It is stopped beside, which nobody waits for."""
    deadline = time.monotonic() + 60
    while where.health(placed).condition != "gone":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_gets_a_container_of_its_own(
    bench: Bench, instance: DagsterInstance, engine: docker.DockerClient
) -> None:
    request, where = requested(bench, instance), platform(instance, ENDLESS)
    placed = Placed(request.run_id, 1, where.locate(request))
    assert where.health(placed).condition == "gone"
    where.place(request)
    where.place(request)  # asked for again, it is started once
    assert where.health(placed).condition == "running"
    container = engine.containers.get(container_name(request.run_id, 1))
    host: Any = container.attrs["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (64 * 2**20, 5 * 10**8)
    assert (host["Privileged"], host["ReadonlyRootfs"]) == (False, True)
    assert (
        container.labels.items()
        >= {
            "graphwright.dev/run": request.run_id,
            "graphwright.dev/tenant": TENANT,
            "graphwright.dev/graph": "placed",
            "team": "ours",
        }.items()
    )
    told = b""
    for piece in container.logs(stream=True, follow=True):
        told += piece
        if b"\n10001\n" in told and b"Read-only" in told:
            break
    assert told.startswith(b"execute-run dagster api execute_run {")
    assert request.run_id.encode() in told
    where.remove(placed)
    where.remove(placed)
    until_gone(where, placed)


@pytest.mark.parametrize(("code", "condition"), [(0, "finished"), (3, "lost")])
def test_how_a_container_ended_is_told(
    bench: Bench, instance: DagsterInstance, engine: docker.DockerClient, code: int, condition: str
) -> None:
    request, where = requested(bench, instance), platform(instance, f"exit {code}")
    request = replace(request, attempt=2, resumes=True)
    where.place(request)
    container = engine.containers.get(container_name(request.run_id, 2))
    container.wait()
    assert container.logs().startswith(b"execute-run dagster api resume_run {")
    placed = Placed(request.run_id, 2, where.locate(request))
    health = where.health(placed)
    assert health.condition == condition
    assert code == 0 or "exit code 3" in health.reason
    where.remove(placed)
    assert engine.containers.list(all=True, filters={"label": "team"}) == []


def test_whoever_removes_a_container_does_not_wait_until_it_is_gone(
    bench: Bench,
    instance: DagsterInstance,
    engine: docker.DockerClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placing_docker, "STOP_SECONDS", 100)
    deaf = "trap 'echo told' TERM; echo deaf; while true; do sleep 0.05; done"
    request, where = requested(bench, instance), platform(instance, deaf)
    placed = Placed(request.run_id, 1, where.locate(request))
    where.place(request)
    container = engine.containers.get(container_name(request.run_id, 1))
    pieces = container.logs(stream=True, follow=True)
    for piece in pieces:
        if b"deaf" in piece:
            break
    for _ in range(3):
        assert not removed(where, placed)
    assert where.health(placed).condition == "running"
    assert Containers().found() == {container.id: request.run_id}  # should this process end now
    container.kill()
    assert b"".join(pieces).count(b"told") == 1  # a second time would leave it no time
    until_gone(where, placed)


def bounded(configured: dict[str, Any], placement: dict[str, Any]) -> tuple[Any, Any]:
    """CPU and memory of a container of a tenant that may have one CPU and 1 GiB."""
    request = PlacementRequest(
        DagsterRun(job_name="any"),
        TENANT,
        GraphId(new_id()),
        "placed",
        1,
        False,
        Placement.model_validate({"isolation": "docker", **placement}),
        PlacementPolicy.model_validate({"max_cpu": "1", "max_memory": "1Gi"}),
    )
    options = container_options(request, configured)
    assert options["memswap_limit"] == options["mem_limit"]
    return options["nano_cpus"], options["mem_limit"]


def test_a_tenants_bounds_hold_where_its_graph_asks_for_nothing() -> None:
    assert bounded({}, {}) == (10**9, 2**30)
    assert bounded({"nano_cpus": 5 * 10**8, "mem_limit": "512m"}, {}) == (5 * 10**8, 2**29)
    assert bounded({"nano_cpus": 2 * 10**9, "mem_limit": "2g"}, {}) == (10**9, 2**30)
    asked = {"resources": {"memory": "768Mi"}}
    assert bounded({"mem_limit": "512m"}, asked) == (10**9, 768 * 2**20)


@contextmanager
def answering(removing: int, looking: int = 200) -> Generator[str]:
    """``DOCKER_HOST`` of an engine with one container, which answers by these codes."""

    class Answer(BaseHTTPRequestHandler):
        def answer(self, code: int, **told: Any) -> None:
            body = json.dumps(told).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.endswith("/version"):
                self.answer(200, ApiVersion="1.41")
            else:
                self.answer(looking, Id="a", State={"Status": "exited"}, message="not now")

        def do_POST(self) -> None:
            self.answer(200)

        def do_DELETE(self) -> None:
            self.answer(removing, message="removal of container a is already in progress")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("removing", "looking", "passing"),
    [(409, 200, None), (204, 429, True), (204, 409, True), (500, 200, True), (403, 200, False)],
)
def test_what_passes_is_asked_again_later(
    monkeypatch: pytest.MonkeyPatch, removing: int, looking: int, passing: bool | None
) -> None:
    """Docker refuses to remove what somebody else is removing."""
    with answering(removing, looking) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        platform, placed = DockerPlatform(DockerRunLauncher()), Placed(RunId("a"), 1, "docker")
        if passing is None:
            platform.remove(placed)
            return
        with pytest.raises(PlacementFailed) as raised:
            platform.remove(placed)
    assert raised.value.passing is passing


def test_what_docker_refuses_fails_the_placement(
    bench: Bench, instance: DagsterInstance, socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = requested(bench, instance)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(PlacementFailed) as raised:
        platform(instance, "true").place(request)
    assert raised.value.passing
