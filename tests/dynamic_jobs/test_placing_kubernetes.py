"""A run's pod that is told to end, on the fake cluster: it is there until it has, or its node is
taken for dead."""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from dagster_k8s import K8sRunLauncher
from kubernetes.client import BatchV1Api, CoreV1Api

from dynamic_jobs.placing import kubernetes_state
from dynamic_jobs.placing.base import Placed, removed
from dynamic_jobs.placing.kubernetes import KubernetesPlatform, job_name
from foundation.ids import RunId, new_id
from tests.kubernetes.server import FakeKubernetes, client_of, fake_kubernetes
from tests.kubernetes.test_fake import IMAGE, job, shell, started, until

pytestmark = pytest.mark.xdist_group("kubernetes")  # for the server is the module's

DEAF = "trap '' TERM; echo deaf; while true; do sleep 0.05; done"


@dataclass(frozen=True)
class Deaf:
    """A pod that does not heed SIGTERM, in place of a run's."""

    platform: KubernetesPlatform
    placed: Placed
    core: Any
    pod: str


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Generator[FakeKubernetes]:
    with fake_kubernetes(tmp_path_factory.mktemp("busy"), [IMAGE]) as fake:
        fake.namespace("runs")
        yield fake


@pytest.fixture
def deaf(busy: FakeKubernetes) -> Generator[Deaf]:
    launcher = K8sRunLauncher(
        service_account_name="default",
        instance_config_map="none",
        dagster_home="/tmp",
        job_image=IMAGE,
        job_namespace="runs",
        load_incluster_config=False,
        kubeconfig_file=str(busy.kubeconfig),
    )
    api = client_of(busy.kubeconfig)
    core: Any = CoreV1Api(api)
    placed = Placed(RunId(new_id()), 1, "runs")
    name = job_name(placed)
    BatchV1Api(api).create_namespaced_job("runs", job(name, shell(DEAF)))
    pod = started(core, name).metadata.name
    log: Any = core.read_namespaced_pod_log(pod, "runs", follow=True, _preload_content=False)
    assert next(log.stream()) == b"deaf\n"
    log.close()
    yield Deaf(KubernetesPlatform(launcher), placed, core, pod)
    for left in core.list_namespaced_pod("runs", label_selector=f"job-name={name}").items:
        core.delete_namespaced_pod(left.metadata.name, "runs", grace_period_seconds=0)


def test_a_pod_is_there_until_it_has_ended(deaf: Deaf) -> None:
    assert not removed(deaf.platform, deaf.placed)
    assert not removed(deaf.platform, deaf.placed)
    assert deaf.platform.health(deaf.placed).condition == "running"
    deaf.core.delete_namespaced_pod(deaf.pod, "runs", grace_period_seconds=0)
    until(lambda: removed(deaf.platform, deaf.placed))


def test_a_pod_whose_node_does_not_answer_is_not_waited_for(
    deaf: Deaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is placed on another. The fake's pods are to be gone at once."""
    monkeypatch.setattr(kubernetes_state, "_OVERDUE", timedelta(hours=-1))
    assert deaf.platform.health(deaf.placed).condition == "running"  # nobody has told it to end
    until(lambda: removed(deaf.platform, deaf.placed))
    health = deaf.platform.health(deaf.placed)
    assert (health.condition, health.reason) == ("lost", "its node fake-node has not ended it")
