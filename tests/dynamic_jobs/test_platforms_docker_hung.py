"""``docker.run`` with a daemon that takes requests and does not answer; skipped, visibly, where no
Docker-compatible socket answers at all."""

import gc
import threading
from collections.abc import Generator

import psutil
import pytest

from dynamic_jobs.platforms import containers, docker_container
from dynamic_jobs.platforms.base import PlatformAway
from dynamic_jobs.platforms.containers import Containers
from dynamic_jobs.platforms.docker import DockerPlatform
from foundation.errors import GraphwrightError
from graph_defs.step_policy import DockerSteps, StepPolicy
from node_types.docker_run import DockerStep
from tests.containers.image import IMAGE, make_image
from tests.containers.socket import docker_socket
from tests.dynamic_jobs.hanging import Hanging, hanging
from tests.dynamic_jobs.steps import Told, removed

pytestmark = pytest.mark.xdist_group("containers")

POLICY = StepPolicy(docker=DockerSteps(images=["localhost/graphwright-tests/*"]))
ENDLESS = "trap 'exit 1' TERM; echo up; while true; do sleep 0.05; done"


@pytest.fixture(scope="module")
def socket() -> Generator[str]:
    with docker_socket() as host:
        make_image(host)
        yield host


@pytest.fixture
def daemon(socket: str, monkeypatch: pytest.MonkeyPatch) -> Generator[Hanging]:
    with hanging(socket) as between:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://{between.address}")
        yield between


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are not answered end soon."""
    monkeypatch.setattr(containers, "ANSWER_SECONDS", 5)
    monkeypatch.setattr(docker_container, "ANSWER_SECONDS", 5)
    monkeypatch.setattr(docker_container, "_WAIT_SECONDS", 2)


class Running(threading.Thread):
    """A step in a thread, and how it failed."""

    def __init__(self, told: Told, program: str) -> None:
        super().__init__()
        self._told = told
        self._given = DockerStep(image=IMAGE, command=["/bin/sh", "-c"], args=[program])
        self.failed: GraphwrightError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._told.run(DockerPlatform(), self._given)
        except GraphwrightError as error:
            self.failed = error


def threads() -> list[threading.Thread]:
    """Those that steps have besides the one that they run in."""
    ours = ("container", "removing-step", "ending-step")
    return [each for each in threading.enumerate() if each.name.startswith(ours)]


def connections(daemon: Hanging) -> list[str]:
    """Those of ours to the daemon that are open."""
    port = int(daemon.address.rpartition(":")[2])
    return [
        each.status
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status != psutil.CONN_TIME_WAIT
    ]


def clear(daemon: Hanging) -> int:
    """What is left is removed as the leftovers of a run that is over are. Says how much it was."""
    daemon.go_on()
    left = Containers().found()
    Containers().remove(left)
    assert Containers().found() == {}
    return len(left)


def test_a_cancelled_step_ends_though_docker_hangs(daemon: Hanging, impatient: None) -> None:
    told = Told(POLICY)
    running = Running(told, ENDLESS)
    told.wait_for("up")
    daemon.hang()
    told.ending.set()
    running.join(60)
    assert not running.is_alive()
    assert running.failed is not None
    for each in threads():
        each.join(60)  # while Docker still hangs
    assert threads() == []
    assert clear(daemon) == 1


def test_what_is_read_is_closed_though_docker_hangs(daemon: Hanging, impatient: None) -> None:
    told = Told(POLICY)
    running = Running(told, ENDLESS.replace("exit 1", "echo stopping >&2; exit 1"))
    told.wait_for("up")
    daemon.hang(rb"GET /v[0-9.]+/containers/[0-9a-f]+/json")  # asked with each stream's first line
    told.ending.set()
    running.join(60)
    assert not running.is_alive()
    for each in threads():
        each.join(60)
    running.failed = None  # it holds on to what asked last, which lets go of what is idle
    gc.collect()  # warns of what nobody has closed, and pytest makes an error of that
    assert connections(daemon) == []
    assert clear(daemon) == 0


def test_a_step_that_has_ended_does_not_wait_for_its_removal(daemon: Hanging) -> None:
    daemon.hang(b"DELETE ")
    running = Running(Told(POLICY), "echo done")
    running.join(60)
    assert not running.is_alive()
    assert running.failed is None
    assert daemon.hung.wait(60)  # it has not waited for that either
    assert clear(daemon) == 1


def test_the_end_of_a_step_is_not_missed_though_docker_hung_meanwhile(
    daemon: Hanging, impatient: None
) -> None:
    daemon.hang(rb"POST /v[0-9.]+/containers/[0-9a-f]+/wait")
    running = Running(Told(POLICY), "exit 3")
    assert daemon.hung.wait(60)
    daemon.hung.clear()
    assert daemon.hung.wait(60)  # it was asked again
    daemon.go_on()
    running.join(60)
    assert "exit code" in str(running.failed)
    removed()
    assert clear(daemon) == 0


def test_docker_that_hangs_before_the_step_begins_is_away(daemon: Hanging, impatient: None) -> None:
    daemon.hang()
    running = Running(Told(POLICY), "true")
    running.join(60)
    assert isinstance(running.failed, PlatformAway)
    assert clear(daemon) == 0
