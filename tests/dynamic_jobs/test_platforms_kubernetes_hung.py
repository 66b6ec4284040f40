"""``kubernetes.job`` with an API server that takes requests and does not answer."""

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import CoreV1Api

from dynamic_jobs.platforms import pods
from dynamic_jobs.platforms.base import PlatformAway
from dynamic_jobs.platforms.kubernetes import KubernetesPlatform
from dynamic_jobs.platforms.pods import Pods
from foundation.errors import GraphwrightError
from graph_defs.step_policy import KubernetesSteps, StepPolicy
from node_types.kubernetes_job import KubernetesStep
from tests.dynamic_jobs.hanging import Hanging, hanging
from tests.dynamic_jobs.steps import Told, until_none
from tests.kubernetes.server import FakeKubernetes, client_of, fake_kubernetes, kubeconfig_of

IMAGE = "registry.example.org/team/etl:1"
POLICY = StepPolicy(kubernetes=KubernetesSteps(images=[IMAGE], namespace="steps"))


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Generator[FakeKubernetes]:
    with fake_kubernetes(tmp_path_factory.mktemp("kubernetes"), [IMAGE]) as fake:
        fake.namespace("steps")
        yield fake


@pytest.fixture
def api_server(
    fake: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Hanging]:
    with hanging(fake.url) as between:
        path = tmp_path / "kubeconfig"
        leads = kubeconfig_of(f"http://{between.address}", fake.token)
        path.write_text(yaml.safe_dump(leads))
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(path))
        monkeypatch.setattr(pods, "_TIMEOUTS", (1, 1))
        monkeypatch.setattr(pods, "_CREATE_TIMEOUTS", (1, 1))
        yield between


class Running(threading.Thread):
    """A step in a thread, and how it failed."""

    def __init__(self, told: Told, script: str) -> None:
        super().__init__()
        self._told = told
        self._given = KubernetesStep(image=IMAGE, command=["sh", "-c"], args=[script])
        self.failed: GraphwrightError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._told.run(KubernetesPlatform(), self._given)
        except GraphwrightError as error:
            self.failed = error


def threads() -> list[threading.Thread]:
    """Those that steps have besides the one that they run in."""
    ours = ("removing-step", "ending-step")
    return [each for each in threading.enumerate() if each.name.startswith(ours)]


@pytest.mark.parametrize("requests", [b"POST /api/v1/namespaces/steps/pods ", b""])
def test_a_step_whose_pod_nobody_answers_for_ends_and_leaves_no_thread(
    fake: FakeKubernetes, api_server: Hanging, requests: bytes
) -> None:
    api_server.hang(requests)
    running = Running(Told(POLICY), "true")
    running.join(60)
    assert not running.is_alive()
    assert isinstance(running.failed, PlatformAway)
    assert api_server.hung.is_set()
    for each in threads():
        each.join(60)
    assert threads() == []
    core: Any = CoreV1Api(client_of(fake.kubeconfig))
    assert core.list_namespaced_pod("steps").items == []


def test_a_step_that_has_ended_does_not_wait_for_its_removal(
    api_server: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    for timeouts in ("_TIMEOUTS", "_CREATE_TIMEOUTS"):
        monkeypatch.setattr(pods, timeouts, (60, 600))
    api_server.hang(b"DELETE ")
    running = Running(Told(POLICY), "echo done")
    running.join(60)
    assert not running.is_alive()
    assert running.failed is None
    assert api_server.hung.wait(60)  # it has not waited for that either
    api_server.go_on()
    left = Pods("steps").found()
    assert len(left) == 1
    Pods("steps").remove(left)
    until_none(Pods("steps").found)
