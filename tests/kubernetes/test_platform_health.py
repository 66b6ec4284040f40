"""What Dagster's client says of a Job that was started, as we tell it: running, lost, and why."""

from collections.abc import Generator
from typing import Any

import pytest
from dagster_k8s.client import DagsterKubernetesClient
from kubernetes.client import BatchV1Api, CoreV1Api

from dynamic_jobs.placing.kubernetes_state import job_health
from tests.kubernetes.server import FakeKubernetes, client_of, fake_kubernetes
from tests.kubernetes.test_fake import IMAGE, job, shell, until

pytestmark = pytest.mark.xdist_group("kubernetes")  # for the server is the module's


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Generator[FakeKubernetes]:
    """One that executes what it is given."""
    with fake_kubernetes(tmp_path_factory.mktemp("busy"), [IMAGE]) as fake:
        fake.namespace("runs")
        yield fake


@pytest.mark.parametrize(
    ("spec", "condition", "reason"),
    [
        (shell("sleep 60"), "running", ""),
        (shell("true"), "finished", ""),
        (shell("exit 3"), "lost", "Error: exit code 3"),
        (
            {**shell("true"), "nodeSelector": {"pool": "nowhere"}},
            "starting",
            "Unschedulable: 0/1 nodes are available: 1 node(s) didn't match Pod's node "
            "affinity/selector.",
        ),
        (
            shell("true", image="nobody/has:this"),
            "lost",
            'ImagePullBackOff: Back-off pulling image "nobody/has:this": not found',
        ),
        (
            shell("true", envFrom=[{"secretRef": {"name": "none"}}]),
            "starting",
            'CreateContainerConfigError: secret "none" not found',
        ),
        (
            {**shell("true"), "serviceAccountName": "ghost"},
            "starting",
            'FailedCreate: Error creating: pods "{job}-" is forbidden: '
            'serviceaccount "ghost" not found',
        ),
    ],
    ids=["running", "finished", "failed", "unschedulable", "image", "secret", "account"],
)
def test_how_what_was_started_is(
    busy: FakeKubernetes, request: Any, spec: dict[str, Any], condition: str, reason: str
) -> None:
    api = client_of(busy.kubeconfig)
    client: Any = DagsterKubernetesClient.production_client(BatchV1Api(api), CoreV1Api(api))
    name = request.node.callspec.id
    client.batch_api.create_namespaced_job("runs", job(name, spec))
    found = until(
        lambda: (
            health
            if (health := job_health(client, name, "runs")).condition == condition
            and bool(health.reason) is bool(reason)
            else None
        )
    )
    assert found.reason == reason.format(job=name)


def test_a_job_whose_pod_was_deleted_is_lost(busy: FakeKubernetes) -> None:
    api = client_of(busy.kubeconfig)
    client: Any = DagsterKubernetesClient.production_client(BatchV1Api(api), CoreV1Api(api))
    client.batch_api.create_namespaced_job("runs", job("evicted", shell("sleep 60")))
    (pod,) = until(lambda: client.get_pods_in_job("evicted", "runs"))
    client.core_api.delete_namespaced_pod(pod.metadata.name, "runs", grace_period_seconds=0)
    health = until(lambda: h if (h := job_health(client, "evicted", "runs")).reason else None)
    assert health.condition == "lost"
    assert "BackoffLimitExceeded" in health.reason
    assert job_health(client, "never", "runs").condition == "gone"
