"""The fake API server, asked by the official client, as Dagster's launcher asks it."""

import copy
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api

from tests.kubernetes.rules import quantity
from tests.kubernetes.server import FakeKubernetes, client_of, fake_kubernetes

pytestmark = pytest.mark.xdist_group("kubernetes")  # for the server is the module's

IMAGE = "graphwright:test"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Generator[FakeKubernetes]:
    folder = tmp_path_factory.mktemp("kubernetes")
    with fake_kubernetes(folder, [IMAGE], rights=[("list", "pods")]) as fake:
        fake.namespace("runs")
        yield fake
        assert fake.unknown() == [f"GET {UNKNOWN}?"]


@pytest.fixture(scope="module")
def client(fake: FakeKubernetes) -> Any:
    return client_of(fake.kubeconfig)


@pytest.fixture(scope="module")
def core(client: Any) -> Any:
    return CoreV1Api(client)


@pytest.fixture(scope="module")
def batch(client: Any) -> Any:
    return BatchV1Api(client)


UNKNOWN = "/apis/apps/v1/namespaces/runs/deployments"


def shell(script: str, **container: Any) -> dict[str, Any]:
    """The specification of a pod that meets the standard, and executes this."""
    return {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "image": IMAGE,
                "command": ["sh", "-c", script],
                "securityContext": RESTRICTED,
                **container,
            }
        ],
    }


def job(name: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"a": "b"}},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}, **more},
    }


def follow(core: Any, pod: str) -> str:
    """All that a pod writes, until it ends."""
    answer = core.read_namespaced_pod_log(pod, "runs", follow=True, _preload_content=False)
    return answer.data.decode()


def started(core: Any, name: str) -> Any:
    """The pod of a Job, once its container has been started, or waits for what does not come."""
    return until(lambda: _started(core, name))


def _started(core: Any, name: str) -> Any:
    pods: list[Any] = core.list_namespaced_pod("runs", label_selector=f"job-name={name}").items
    for pod in pods:
        status: Any = pod.status
        containers: list[Any] = status.container_statuses or []
        for container in containers:
            waiting = container.state.waiting
            if waiting is None or waiting.message:
                return pod
        conditions: list[Any] = status.conditions or []
        if any(condition.reason == "Unschedulable" for condition in conditions):
            return pod
    return None


def until(looks: Callable[[], Any]) -> Any:
    """What it sees, as soon as it sees something. Asking takes as long as an answer takes."""
    while not (seen := looks()):
        pass
    return seen


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(ApiException) as raised:
        call()
    error: Any = raised.value
    return error.status, str(error.body)


def test_a_job_runs_its_container_and_tells_how_it_ended(core: Any, batch: Any) -> None:
    core.create_namespaced_secret(
        "runs", {"metadata": {"name": "access"}, "stringData": {"PASSWORD": "hunter2"}}
    )
    core.create_namespaced_config_map(
        "runs", {"metadata": {"name": "config"}, "data": {"dagster.yaml": "a: 1"}}
    )
    spec = shell(
        'echo "$PASSWORD $WHO $HOME"; cat $PLACE/dagster.yaml; echo;'
        " test -w $TMPDIR && echo writable; env | grep -c GRAPHWRIGHT_TEST",
        envFrom=[{"secretRef": {"name": "access"}}],
        env=[
            {"name": "FIRST", "value": "you"},
            {"name": "WHO", "value": "for $(FIRST)"},
            {"name": "PLACE", "value": "/config"},
            {"name": "TMPDIR", "value": "/tmp"},
            {"name": "HOME", "value": "/tmp/home"},
        ],
        volumeMounts=[
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "config", "mountPath": "/config"},
        ],
    )
    spec["volumes"] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "config"}},
    ]
    batch.create_namespaced_job("runs", job("tells", spec))
    pod = started(core, "tells")
    written = follow(core, pod.metadata.name).splitlines()
    assert written[0].startswith("hunter2 for you /")
    assert written[0].endswith("/volumes/tmp/home")
    assert written[1:] == ["a: 1", "writable", "0"]
    status = until(
        lambda: s if (s := batch.read_namespaced_job_status("tells", "runs").status).failed else 0
    )
    assert (status.active, status.failed, status.succeeded) == (None, 1, None)
    assert status.conditions[0].reason == "BackoffLimitExceeded"
    ended = core.read_namespaced_pod(pod.metadata.name, "runs").status
    assert (ended.phase, ended.container_statuses[0].state.terminated.exit_code) == ("Failed", 1)


def test_a_finished_job_goes_after_its_time(core: Any, batch: Any) -> None:
    batch.create_namespaced_job("runs", job("brief", shell("true"), ttlSecondsAfterFinished=0))
    until(lambda: not batch.list_namespaced_job("runs", field_selector="metadata.name=brief").items)
    until(lambda: not core.list_namespaced_pod("runs", label_selector="job-name=brief").items)


@pytest.mark.parametrize(
    ("name", "asked", "seconds", "says", "ends"),
    [
        ("patient", "echo asked; exit 0", (None,), [b"asked\n"], "succeeded"),
        ("deaf", "", (1,), [], "failed"),
        ("stubborn", "echo asked", (None, 0), [b"asked\n"], "failed"),
        ("gone", "echo asked", (0,), [], "failed"),
    ],
)
def test_a_deleted_pod_is_asked_to_end_and_then_killed(
    core: Any,
    batch: Any,
    name: str,
    asked: str,
    seconds: tuple[int | None, ...],
    says: list[bytes],
    ends: str,
) -> None:
    """It is deleted again, with the next grace, once it has said that it was asked to end."""
    script = f"trap '{asked}' TERM; echo ready; while true; do sleep 0.05; done"
    batch.create_namespaced_job("runs", job(name, shell(script)))
    pod = started(core, name).metadata.name
    answer = core.read_namespaced_pod_log(pod, "runs", follow=True, _preload_content=False)
    stream = answer.stream()
    assert next(stream) == b"ready\n"
    said: list[bytes] = []
    for again, grace in enumerate(seconds):
        if again:
            said.append(next(stream))
        core.delete_namespaced_pod(pod, "runs", grace_period_seconds=grace)
    assert [*said, *stream] == says
    until(lambda: getattr(batch.read_namespaced_job_status(name, "runs").status, ends))
    until(lambda: not core.list_namespaced_pod("runs", label_selector=f"job-name={name}").items)


def test_a_deleted_job_leaves_its_pods_unless_told_otherwise(core: Any, batch: Any) -> None:
    for name, policy, left in (("orphan", None, 1), ("family", "Background", 0)):
        batch.create_namespaced_job("runs", job(name, shell("sleep 60")))
        pod = started(core, name)
        batch.delete_namespaced_job(name, "runs", propagation_policy=policy)
        assert refused(lambda: batch.read_namespaced_job(name, "runs"))[0] == 404  # noqa: B023
        if left:
            core.delete_namespaced_pod(pod.metadata.name, "runs", grace_period_seconds=0)
        until(
            lambda: (
                not core.list_namespaced_pod(
                    "runs",
                    label_selector=f"job-name={name}",  # noqa: B023
                ).items
            )
        )


def test_what_cannot_run_says_why(core: Any, batch: Any) -> None:
    elsewhere = {**shell("true"), "nodeSelector": {"pool": "nowhere"}}
    large = shell("true", resources={"limits": {"cpu": "64"}})
    unknown = shell("true", image="nobody/has:this")
    secretless = shell("true", envFrom=[{"secretRef": {"name": "none"}}])
    said: list[str] = []
    for name, spec in (
        ("elsewhere", elsewhere), ("large", large), ("unknown", unknown), ("less", secretless),
    ):  # fmt: skip
        batch.create_namespaced_job("runs", job(name, spec))
        status = started(core, name).status
        assert status.phase == "Pending"
        if status.container_statuses:
            waiting = status.container_statuses[0].state.waiting
            said.append(f"{waiting.reason}: {waiting.message}")
        else:
            said.append(status.conditions[0].message)
    assert said == [
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        "0/1 nodes are available: 1 Insufficient cpu.",
        'ImagePullBackOff: Back-off pulling image "nobody/has:this": not found',
        'CreateContainerConfigError: secret "none" not found',
    ]


def test_a_restricted_namespace_takes_no_other_pods(core: Any, batch: Any) -> None:
    loose = shell("true", securityContext={})
    pod = {"metadata": {"name": "loose"}, "spec": loose}
    code, body = refused(lambda: core.create_namespaced_pod("runs", pod))
    assert code == 403
    assert 'violates PodSecurity \\"restricted:latest\\"' in body
    for each in ("allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile"):
        assert each in body
    batch.create_namespaced_job("runs", job("loose", loose))  # the Job is there, and no pod
    events = core.list_namespaced_event("runs", field_selector="involvedObject.name=loose").items
    assert [event.reason for event in events] == ["FailedCreate"]
    assert "runAsNonRoot" in events[0].message
    stranger = {**shell("true"), "serviceAccountName": "stranger"}
    pod = {"metadata": {"name": "stranger"}, "spec": stranger}
    assert refused(lambda: core.create_namespaced_pod("runs", pod))[0] == 403


def wrong() -> Iterator[tuple[str, Callable[[dict[str, Any]], Any], str]]:
    """What is made of a good Job, and what the answer says of it."""

    def pod(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        return lambda job: change(job["spec"]["template"]["spec"])

    def main(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        return lambda job: change(job["spec"]["template"]["spec"]["containers"][0])

    requests = {"limits": {"memory": "1Gi"}, "requests": {"memory": "1025Mi"}}
    yield "field", lambda job: job["spec"].update(retries=1), "'retries' was unexpected"
    yield "kind", pod(lambda spec: spec.update(hostNetwork="yes")), "'yes' is not of type"
    yield "name", lambda job: job["metadata"].update(name="Under_score"), "no DNS subdomain"
    yield "long", lambda job: job["metadata"].update(name="a" * 64), "no DNS label"
    yield "label", lambda job: job["metadata"]["labels"].update(a="a b"), "a label is at most"
    yield "key", lambda job: job["metadata"]["labels"].update({"a/b/c": "d"}), "no qualified name"
    yield "restart", pod(lambda spec: spec.update(restartPolicy="Always")), "valid values"
    yield "limits", main(lambda c: c.update(resources=requests)), "must be at most the limit"
    yield "amount", main(lambda c: c.update(resources={"limits": {"cpu": "1 core"}})), "quantity"
    yield (
        "mount",
        main(lambda c: c.update(volumeMounts=[{"name": "no", "mountPath": "/a"}])),
        "Not found: 'no'",
    )
    yield (
        "toleration",
        pod(
            lambda spec: spec.update(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}])
        ),
        "value must be empty",
    )
    yield "image", main(lambda c: c.update(image="")), "image: Required value"


@pytest.mark.parametrize(
    ("change", "says"), [each[1:] for each in wrong()], ids=[each[0] for each in wrong()]
)
def test_a_wrong_manifest_is_refused(
    batch: Any, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    body = copy.deepcopy(job("wrong", shell("true")))
    change(body)
    code, answer = refused(lambda: batch.create_namespaced_job("runs", body))
    assert code == 422
    assert says in answer.replace('\\"', '"')


def test_a_name_is_taken_once_and_strangers_are_not_heard(
    fake: FakeKubernetes, client: Any, core: Any
) -> None:
    pod = {"metadata": {"name": "once"}, "spec": shell("true")}
    core.create_namespaced_pod("runs", pod)
    assert refused(lambda: core.create_namespaced_pod("runs", pod))[0] == 409
    assert refused(lambda: core.create_namespaced_pod("nowhere", pod))[0] == 404
    assert refused(lambda: client.call_api(UNKNOWN, "GET", auth_settings=["BearerToken"]))[0] == 404
    assert refused(lambda: client.call_api("/api/v1/namespaces/runs/pods", "GET"))[0] == 401
    limited: Any = CoreV1Api(client_of(fake.limited))
    assert limited.list_namespaced_pod("runs").items
    assert refused(lambda: limited.delete_namespaced_pod("once", "runs"))[0] == 403


def test_quantities() -> None:
    assert [float(quantity(text)) for text in ("500m", "1Ki", "2e3", ".5G", 3)] == [
        0.5, 1024, 2000, 5e8, 3,
    ]  # fmt: skip


def test_without_execution_pods_wait_for_ever(tmp_path: Path) -> None:
    with fake_kubernetes(tmp_path, [], executes=False) as fake:
        fake.namespace("runs")
        client = client_of(fake.kubeconfig)
        batch: Any = BatchV1Api(client)
        core: Any = CoreV1Api(client)
        batch.create_namespaced_job("runs", job("idle", shell("true")))
        assert batch.read_namespaced_job_status("idle", "runs").status.failed is None
        assert core.list_namespaced_pod("runs").items == []
