"""``docker.run`` through a real Docker-compatible socket; skipped, visibly, where none answers."""

import threading
from collections.abc import Generator
from typing import Any

import docker
import pytest

from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.platforms.base import PlatformAway, StepFailed, StepNotAllowed, StepNotStarted
from dynamic_jobs.platforms.containers import Containers
from dynamic_jobs.platforms.docker import DockerPlatform, container_options
from graph_defs.step_policy import DockerSteps, StepPolicy
from node_types.docker_run import DockerStep
from tests.containers.image import IMAGE, make_image
from tests.containers.socket import docker_socket
from tests.dynamic_jobs.conftest import TENANT, Bench, graph
from tests.dynamic_jobs.steps import Told, allow, removed, wait_for_line

pytestmark = pytest.mark.xdist_group("containers")

POLICY = StepPolicy(docker=DockerSteps(images=["localhost/graphwright-tests/*"]))
ENDLESS = "trap 'echo stopping; exit 1' TERM; echo up; while true; do sleep 0.05; done"
REPORT = """
import json, os, sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("from pipes")
    print("from stdout")
    print("from stderr", file=sys.stderr)
    pipes.report_custom_message({"progress": 0.5})
    pipes.report_asset_materialization({"rows": 3}, asset_key="lake/quakes")
    pipes.report_custom_message({"output": "an earlier one"})
    output = {"env": dict(os.environ), "uid": os.getuid(), "long": "x" * 100_000}
    extras = {name: pipes.get_extra(name) for name in ("key", "input")}
    pipes.report_custom_message({"output": {**output, **extras}})
"""


@pytest.fixture(scope="module")
def socket() -> Generator[str]:
    with docker_socket() as host:
        make_image(host)
        yield host


@pytest.fixture
def platform(socket: str, monkeypatch: pytest.MonkeyPatch) -> DockerPlatform:
    monkeypatch.setenv("DOCKER_HOST", socket)
    return DockerPlatform()


def step(program: str, **more: Any) -> DockerStep:
    return DockerStep(image=IMAGE, command=["/bin/sh", "-c"], args=[program], **more)


def containers(host: str) -> int:
    removed()
    client = docker.DockerClient(base_url=host)
    try:
        return len(client.containers.list(all=True, filters={"label": "graphwright.dev/node"}))
    finally:
        client.close()


def test_a_program_reports_through_pipes(platform: DockerPlatform, socket: str) -> None:
    told = Told(POLICY)
    given = DockerStep(
        image=IMAGE, command=["/bin/python"], args=["-c", REPORT], env={"MINE": "yes"}, input=[1]
    )
    output: Any = told.run(platform, given)
    assert (output["key"], output["input"]) == (told.step().context.key, [1])
    assert len(output["long"]) == 100_000  # longer than what Docker passes on in one piece
    assert {"from pipes", "from stdout", "from stderr", "progress: 50%"} <= set(told.lines)
    assert told.assets == [(["lake", "quakes"], {"rows": 3})]
    assert containers(socket) == 0


def test_a_program_has_nothing_of_the_workers(
    platform: DockerPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_DATABASE_URL", "postgresql://owner:password@localhost/all")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the worker's")
    given = DockerStep(
        image=IMAGE, command=["/bin/python"], args=["-c", REPORT], env={"MINE": "yes"}
    )
    output: Any = Told(POLICY).run(platform, given)
    assert output["env"].pop("MINE") == "yes"
    assert set(output["env"]) <= {
        "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES",
        "PATH", "HOME", "HOSTNAME", "TERM", "container", "LC_CTYPE",
    }  # fmt: skip
    assert output["uid"] == 65534


def test_a_program_cannot_write_nor_gain_privileges_nor_reach_a_network(
    platform: DockerPlatform,
) -> None:
    told = Told(POLICY)
    looks = (
        "touch /here; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /sys/class/net"
    )
    given = step(looks.replace("grep -E '^(CapEff|CapBnd|NoNewPrivs)'", "cat"))
    told.run(platform, given)
    text = "\n".join(told.lines)
    assert "Read-only file system" in text
    assert "CapEff:\t0000000000000000" in text
    assert "CapBnd:\t0000000000000000" in text
    assert "NoNewPrivs:\t1" in text
    assert {"lo", "eth0"} & set(told.lines) == {"lo"}


def test_a_program_that_fails_fails_the_node(platform: DockerPlatform, socket: str) -> None:
    with pytest.raises(StepFailed, match="exit code 3"):
        Told(POLICY).run(platform, step("exit 3"))
    program = "from dagster_pipes import open_dagster_pipes\nwith open_dagster_pipes(): 1 / 0"
    with pytest.raises(StepFailed, match="ZeroDivisionError: division by zero"):
        Told(POLICY).run(
            platform, DockerStep(image=IMAGE, command=["/bin/python"], args=["-c", program])
        )
    assert containers(socket) == 0


def test_what_the_operator_does_not_allow_is_refused(platform: DockerPlatform) -> None:
    with pytest.raises(StepNotAllowed, match="to this tenant"):
        Told(StepPolicy()).run(platform, step("true"))
    with pytest.raises(StepNotAllowed, match="does not allow the image"):
        Told(POLICY).run(platform, DockerStep(image="example.org/other"))
    with pytest.raises(StepNotAllowed, match="1Gi of memory"):
        Told(POLICY).run(platform, step("true", memory="2Gi"))


def test_a_command_that_is_not_there_and_a_socket_that_is_not_are_told_apart(
    platform: DockerPlatform, socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepNotStarted):
        Told(POLICY).run(platform, DockerStep(image=IMAGE, command=["/no/such/program"]))
    assert containers(socket) == 0
    with pytest.raises(StepNotStarted, match="`input` takes"):
        Told(POLICY).run(platform, step("true", input=[str(n) + "-" * 7 for n in range(10**5)]))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(PlatformAway):
        Told(POLICY).run(platform, step("true"))


def test_the_least_that_a_step_may_ask_for_is_enough_to_start(platform: DockerPlatform) -> None:
    told = Told(POLICY)
    told.run(platform, step("echo up", cpu="10m", memory="6Mi"))
    assert told.lines == ["up"]


def test_no_more_lines_than_are_allowed_become_events(platform: DockerPlatform) -> None:
    told = Told(POLICY, log_lines=2)
    told.run(platform, step("for n in 1 2 3 4; do echo $n; done"))
    assert told.lines == ["1", "2", "the step tells much: no more lines are kept"]


def test_a_program_that_writes_much_does_not_fill_the_disk_of_its_machine() -> None:
    given = step("true")
    options = container_options(given, Told(POLICY).step(), POLICY.docker or DockerSteps())
    kept = {"max-size": "16m", "max-file": "2"}
    assert options["log_config"] == {"type": "json-file", "config": kept}


def test_a_container_that_a_killed_worker_left_is_ended_first(
    platform: DockerPlatform, socket: str
) -> None:
    client = docker.DockerClient(base_url=socket)
    try:
        left = client.containers.create(
            IMAGE, ["/bin/sleep", "600"], labels=Told(POLICY).step().labels, network_mode="none"
        )
        other = client.containers.create(
            IMAGE,
            ["/bin/true"],
            labels=Told(POLICY, node="other").step().labels,
            network_mode="none",
        )
        left.start()
        Told(POLICY).run(platform, step("true"))
        removed()
        assert [each.id for each in client.containers.list(all=True)] == [other.id]
        assert other.id is not None
        assert Containers().found() == {other.id: Told(POLICY).step().context.run_id}
        Containers().remove([other.id])
        Containers().remove([other.id])  # somebody else may have
        assert Containers().found() == {}
    finally:
        client.close()


def test_a_cancelled_step_stops_its_container(platform: DockerPlatform, socket: str) -> None:
    told = Told(POLICY)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            told.run(platform, step(ENDLESS))
        except StepFailed as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    told.wait_for("up")
    told.ending.set()
    thread.join(60)
    assert not thread.is_alive()
    assert failed
    assert "stopping" in told.lines
    assert containers(socket) == 0


def test_a_run_of_a_worker_streams_and_is_cancelled(
    bench: Bench, socket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", socket)
    allow(bench, docker={"images": ["localhost/*"]})
    report = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.report_custom_message({"output": {"doubled": pipes.get_extra("input") * 2}})
"""
    given = {"image": IMAGE, "command": ["/bin/python"], "args": ["-c", report], "input": 21}
    nodes = {
        "double": {"type": "docker.run", "with": given},
        "after": {
            "type": "data.transform",
            "needs": ["double"],
            "with": {"value": "${{ nodes.double.output.doubled }}"},
        },
    }
    whole = bench.publish(graph(nodes, outputs={"answer": "${{ nodes.after.output }}"}))
    loop = {"image": IMAGE, "command": ["/bin/sh", "-c"], "args": [ENDLESS]}
    endless = bench.publish(graph({"one": {"type": "docker.run", "with": loop}}, name="endless"))
    late = {"one": {"type": "docker.run", "with": loop, "timeout_seconds": 0.5}}
    timed = bench.publish(graph(late, name="timed"))
    with bench.worker():
        row = bench.wait_for(bench.start(whole))
        assert (row["status"], row["outputs"]) == ("succeeded", {"answer": 42})
        row = bench.wait_for(bench.start(timed))
        assert (row["status"], row["error"]["code"]) == ("failed", "timeout")
        run_id = bench.start(endless)
        wait_for_line(bench, run_id, "up")
        cancel(bench.connection, bench.storage.writer, TENANT, run_id)
        assert bench.wait_for(run_id)["status"] == "cancelled"
    assert containers(socket) == 0
