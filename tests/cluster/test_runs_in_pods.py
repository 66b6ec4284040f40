"""Graphs with ``isolation: kubernetes``, posted by REST: the real launcher, real Jobs, real pods.

All runs are started at once, for each pod takes seconds to begin.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.stack import NOWHERE, Stack
from tests.dynamic_jobs.conftest import graph, value

pytestmark = [pytest.mark.xdist_group("cluster"), pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Started:
    """The runs that there are."""

    resumed: str
    failing: str
    cancelled: str
    unschedulable: str


@pytest.fixture(scope="module")
def started(pods: Stack) -> Started:
    return Started(
        unschedulable=pods.start(
            "unschedulable", {"a": value(1)}, kubernetes={"node_selector": NOWHERE}
        ),
        resumed=pods.start(
            "resumed",
            pods.gated("resumed"),
            resources={"cpu": "500m", "memory": "1Gi"},
            kubernetes={"tolerations": [{"key": "dedicated", "operator": "Exists"}]},
        ),
        failing=pods.start("failing", pods.gated("failing"), on_lost="fail"),
        cancelled=pods.start("cancelled", pods.gated("cancelled")),
    )


def events(pods: Stack, run_id: str) -> Iterator[dict[str, Any]]:
    """The run's events as they come, until its end."""
    url = f"/api/v1/runs/{run_id}/events"
    with pods.http.stream("GET", url, headers={"Accept": "text/event-stream"}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and "type" in (event := json.loads(line[6:])):
                yield event


def test_a_run_streams_live_survives_its_pod_and_completes(pods: Stack, started: Started) -> None:
    run_id = started.resumed
    seen: list[tuple[str, str | None]] = []
    for event in events(pods, run_id):
        seen.append((event["type"], event["node"]))
        if seen[-1] == ("node.started", "held") and seen.count(seen[-1]) == 1:
            pods.gates.arrived("/gate-resumed")
            assert pods.run(run_id)["status"] == "running"
            pods.cluster.kill(run_id)
            pods.gates.arrived("/gate-resumed")  # another pod
            pods.gates.gates["/gate-resumed"].set()
    assert seen[-1] == ("run.succeeded", None)
    assert seen.count(("node.started", "first")) == 1
    assert pods.gates.calls["/first-resumed"] == 1
    assert pods.ended(run_id)["status"] == "succeeded"
    (job,) = pods.cluster.jobs(run_id)  # that of the first attempt was removed
    assert re.fullmatch(rf"dagster-run-{run_id}-\d", job.metadata.name)
    assert "lost" in pods.said(run_id)


def test_what_the_jobs_of_runs_are(pods: Stack, started: Started) -> None:
    pods.gates.arrived("/gate-failing")
    (job,) = pods.cluster.jobs(started.failing)
    assert job.metadata.name == f"dagster-run-{started.failing}"
    assert job.spec.backoff_limit == 0
    assert job.spec.ttl_seconds_after_finished == 3_600
    assert job.spec.active_deadline_seconds is None
    labels = job.spec.template.metadata.labels
    assert labels["graphwright.dev/tenant"] == "acme"  # whatever the policy's labels are
    assert labels["graphwright.dev/graph"] == "failing"
    assert labels["team"] == "data"
    pod = job.spec.template.spec
    assert pod.automount_service_account_token is False
    assert pod.service_account_name == "default"
    assert pod.restart_policy == "Never"
    assert (pod.host_network, pod.host_pid, pod.host_ipc) == (None, None, None)
    (container,) = pod.containers
    security = container.security_context
    assert security.run_as_non_root
    assert security.read_only_root_filesystem
    assert not security.allow_privilege_escalation
    assert not security.privileged
    assert security.capabilities.drop == ["ALL"]
    assert security.seccomp_profile.type == "RuntimeDefault"
    assert container.image == pods.cluster.image
    assert container.command == ["graphwright", "execute-run"]
    assert container.args[:3] == ["dagster", "api", "execute_run"]
    assert [source.secret_ref.name for source in container.env_from] == ["graphwright"]
    assert {mount.mount_path for mount in container.volume_mounts} == {
        "/tmp", "/var/lib/graphwright",
    }  # fmt: skip
    assert container.resources.requests == {"cpu": "100m", "memory": "256Mi"}
    told = json.dumps(pods.cluster.batch.api_client.sanitize_for_serialization(job))
    for secret in (pods.settings.database_url, pods.settings.redis_url):
        assert secret not in told


def test_a_run_whose_pod_is_lost_fails_if_that_is_its_policy(pods: Stack, started: Started) -> None:
    pods.cluster.kill(started.failing)
    run = pods.ended(started.failing)
    assert (run["status"], run["error"]["code"]) == ("failed", "run_lost")
    assert pods.gates.calls["/first-failing"] == 1


def test_a_cancelled_run_leaves_no_job(pods: Stack, started: Started) -> None:
    pods.gates.arrived("/gate-cancelled")
    assert pods.post(f"/runs/{started.cancelled}/cancel", {}).status_code < 300
    assert pods.ended(started.cancelled)["status"] == "cancelled"
    pods.until(lambda: not pods.cluster.jobs(started.cancelled), "Job that is gone")
    pods.until(lambda: not pods.cluster.pods(started.cancelled), "pod that is gone")


def test_what_a_tenant_may_not_ask_for_is_refused(pods: Stack) -> None:
    asked: list[tuple[dict[str, Any], str, str]] = [
        ({"isolation": "docker"}, "", "isolation"),
        ({"kubernetes": {"service_account": "admin"}}, "/kubernetes", "service_account"),
        ({"kubernetes": {"node_selector": {"a": "b"}}}, "/kubernetes", "node_selector"),
        ({"resources": {"cpu": "64"}}, "/resources", "resources"),
    ]
    for said, pointer, code in asked:
        document = graph({"a": value(1)}, name="greedy", **{"isolation": "kubernetes", **said})
        answer = pods.post("/graphs", document)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"].startswith(pointer)
        assert error["code"] == f"{code}_not_allowed"


def test_a_run_that_finds_no_node_says_so_and_can_be_cancelled(
    pods: Stack, started: Started
) -> None:
    run_id = started.unschedulable
    pods.until(lambda: "node affinity/selector" in pods.said(run_id), "word of the scheduler")
    assert pods.run(run_id)["status"] == "queued"
    assert pods.post(f"/runs/{run_id}/cancel", {}).status_code < 300
    assert pods.ended(run_id)["status"] == "cancelled"
    pods.until(lambda: not pods.cluster.jobs(run_id), "Job that is gone")
