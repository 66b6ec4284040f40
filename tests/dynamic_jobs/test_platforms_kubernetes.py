"""``kubernetes.job`` against the fake API server, whose pods are local processes."""

import threading
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest
from kubernetes.client import CoreV1Api

from dynamic_jobs.platforms.base import StepFailed, StepNotAllowed, StepNotStarted
from dynamic_jobs.platforms.kubernetes import KubernetesPlatform
from dynamic_jobs.platforms.pods import Pods
from foundation.errors import GraphwrightError
from graph_defs.step_policy import KubernetesSteps, StepPolicy
from node_types.base import OutputTooLarge
from node_types.kubernetes_job import KubernetesStep
from tests.dynamic_jobs.steps import Told, until_none
from tests.kubernetes.server import FakeKubernetes, client_of, fake_kubernetes

IMAGE = "registry.example.org/team/etl:1"
STEPS = KubernetesSteps(
    images=["registry.example.org/team/*"],
    namespace="steps",
    service_accounts=["etl"],
    node_selector={"kubernetes.io/os": "linux"},
)
POLICY = StepPolicy(kubernetes=STEPS)
REPORT = """
import json, os, sys
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("from pipes")
    print("from stdout", flush=True)
    pipes.report_asset_materialization({"rows": 3}, asset_key="lake/quakes")
    key = pipes.get_extra("key")
    pipes.report_custom_message({"output": {"key": key, "env": sorted(os.environ)}})
"""
ENDLESS = "trap 'echo stopping; exit 1' TERM; echo up; while true; do sleep 0.05; done"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Generator[FakeKubernetes]:
    rights = [("create", "pods"), ("get", "pods"), ("list", "pods"), ("delete", "pods")]
    rights.append(("get", "pods/log"))
    folder = tmp_path_factory.mktemp("kubernetes")
    with fake_kubernetes(folder, [IMAGE], rights=rights) as fake:
        fake.namespace("steps")  # restricted: it refuses pods that ask for more
        account = {"metadata": {"name": "etl"}}
        fake.create("/api/v1/namespaces/steps/serviceaccounts", account)
        yield fake
        assert fake.unknown() == []


@pytest.fixture
def platform(fake: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> KubernetesPlatform:
    monkeypatch.setenv("KUBECONFIG", str(fake.limited))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(fake.limited)
    )
    return KubernetesPlatform()


@pytest.fixture(scope="module")
def core(fake: FakeKubernetes) -> Any:
    return CoreV1Api(client_of(fake.kubeconfig))


def pods(core: Any) -> list[Any]:
    return core.list_namespaced_pod("steps").items


def step(script: str, **more: Any) -> KubernetesStep:
    return KubernetesStep(image=IMAGE, command=["sh", "-c"], args=[script], **more)


def running(told: Told, platform: KubernetesPlatform, given: KubernetesStep) -> threading.Thread:
    """Runs the step in a thread; its failure is dropped."""

    def run() -> None:
        with suppress(GraphwrightError):
            told.run(platform, given)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_program_reports_through_pipes_and_has_nothing_of_the_workers(
    platform: KubernetesPlatform, core: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_DATABASE_URL", "postgresql://owner:password@localhost/all")
    told = Told(POLICY)
    given = KubernetesStep(
        image=IMAGE, command=["python"], args=["-c", REPORT], env={"MINE": "yes"}
    )
    output: Any = told.run(platform, given)
    assert output["key"] == told.step().context.key
    assert "MINE" in output["env"]
    assert not [name for name in output["env"] if name.startswith("GRAPHWRIGHT")]
    assert {"from pipes", "from stdout"} <= set(told.lines)
    assert told.assets == [(["lake", "quakes"], {"rows": 3})]
    until_none(lambda: pods(core))


def test_a_pod_is_restricted_and_has_no_token(platform: KubernetesPlatform, core: Any) -> None:
    told = Told(POLICY)
    given = step(ENDLESS, env={"MINE": "yes"}, service_account="etl", cpu="500m", user=1234)
    thread = running(told, platform, given)
    told.wait_for("up")
    (pod,) = pods(core)
    told.ending.set()
    thread.join(60)
    assert not thread.is_alive()
    until_none(lambda: pods(core))
    assert "stopping" in told.lines
    spec, (container,) = pod.spec, pod.spec.containers
    assert told.step().labels.items() <= pod.metadata.labels.items()
    assert spec.automount_service_account_token is False
    assert spec.enable_service_links is False
    assert (spec.service_account_name, spec.node_selector) == ("etl", STEPS.node_selector)
    assert (spec.restart_policy, spec.active_deadline_seconds) == ("Never", 86_400)
    assert (spec.security_context.run_as_non_root, spec.security_context.run_as_user) == (
        True,
        1234,
    )
    assert spec.security_context.seccomp_profile.type == "RuntimeDefault"
    assert container.security_context.allow_privilege_escalation is False
    assert container.security_context.read_only_root_filesystem is True
    assert container.security_context.capabilities.drop == ["ALL"]
    assert container.resources.limits == {"cpu": "500m", "memory": "512Mi"}
    assert container.env_from is None
    assert {each.name for each in container.env} == {
        "MINE", "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES",
    }  # fmt: skip
    assert [each.name for each in spec.volumes] == ["tmp"]


def test_what_fails_or_cannot_start_fails_the_node(platform: KubernetesPlatform, core: Any) -> None:
    with pytest.raises(StepFailed):
        Told(POLICY).run(platform, step("exit 3"))
    with pytest.raises(StepNotStarted, match="ImagePull"):
        Told(POLICY).run(platform, KubernetesStep(image="registry.example.org/team/none:1"))
    elsewhere = StepPolicy(kubernetes=STEPS.model_copy(update={"namespace": "nowhere"}))
    with pytest.raises(StepNotStarted, match="404"):
        Told(elsewhere).run(platform, step("true"))
    until_none(lambda: pods(core))


def test_a_program_finds_its_variables_as_they_were_set(platform: KubernetesPlatform) -> None:
    env = {"A": "a", "B": "$(A) $$ $5", "C": "$(B)"}
    show = 'echo "$B"; echo "$C"; while [ -z "$C" ]; do :; done'
    told = Told(POLICY)
    told.run(platform, step(show, env=env))
    assert told.lines == ["$(A) $$ $5", "$(B)"]


def test_an_output_that_is_too_large_fails_the_node(platform: KubernetesPlatform) -> None:
    program = (
        "from dagster_pipes import open_dagster_pipes\n"
        "with open_dagster_pipes() as pipes:\n"
        "    pipes.report_custom_message({'output': 'x' * 8_000_000})"
    )
    given = KubernetesStep(image=IMAGE, command=["python"], args=["-c", program])
    told = Told(POLICY)
    with pytest.raises(OutputTooLarge):
        told.run(platform, given)


def test_a_pod_that_somebody_deletes_fails_the_node(platform: KubernetesPlatform) -> None:
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
    left = Pods("steps").found()
    assert set(left.values()) == {told.step().context.run_id}
    Pods("steps").remove(left)
    thread.join(60)
    assert "was deleted" in str(failed)
    Pods("steps").remove(left)  # somebody else may have
    until_none(Pods("steps").found)


def test_what_the_operator_does_not_allow_is_refused(platform: KubernetesPlatform) -> None:
    with pytest.raises(StepNotAllowed, match="to this tenant"):
        Told(StepPolicy()).run(platform, step("true"))
    with pytest.raises(StepNotAllowed, match="does not allow the image"):
        Told(POLICY).run(platform, KubernetesStep(image="example.org/other"))
    with pytest.raises(StepNotAllowed, match="the service account admin"):
        Told(POLICY).run(platform, step("true", service_account="admin"))
