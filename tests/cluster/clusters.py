"""The cluster that the tests use: the fake, or the one that ``make test-cluster`` is given."""

import itertools
import os
import secrets
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api

from tests.kubernetes.security import ENFORCE
from tests.kubernetes.server import client_of, fake_kubernetes

SECRET: Final = "graphwright"
"""What every run pod's environment is taken from."""
IMAGE: Final = "graphwright:test"

_COMPONENTS: Final = Path(__file__).parents[2] / "deploy/kubernetes/components"
_ACCESS: Final = _COMPONENTS / "run-namespace/access.yaml"
_REAL: Final = "GRAPHWRIGHT_TEST_CLUSTER"
_NEEDED: Final = ("KUBECONFIG", "IMAGE", "HOST", "DATABASE_URL", "REDIS_URL")


@dataclass(frozen=True)
class Cluster:
    """A namespace of its own, which enforces the Pod Security Standard ``restricted``."""

    kubeconfig: Path
    """What the launcher has. To the fake it has the rights that our manifests give it, and no
    other."""
    namespace: str
    image: str
    host: str
    """Where pods find this machine."""
    core: Any
    batch: Any

    def give(self, variables: Mapping[str, str]) -> None:
        """Have these in the environment of run pods."""
        body = {"metadata": {"name": SECRET}, "stringData": dict(variables)}
        self.core.create_namespaced_secret(self.namespace, body)

    def jobs(self, run_id: str) -> list[Any]:
        """The Jobs of a run that are there, oldest first."""
        label = f"dagster/run-id={run_id}"
        found: list[Any] = self.batch.list_namespaced_job(
            self.namespace, label_selector=label
        ).items
        return sorted(found, key=lambda job: job.metadata.creation_timestamp)

    def pods(self, run_id: str) -> list[Any]:
        """The pods of a run that are there."""
        label = f"dagster/run-id={run_id}"
        return self.core.list_namespaced_pod(self.namespace, label_selector=label).items

    def kill(self, run_id: str) -> None:
        """Kill what runs of a run, as a node does that is lost: nobody is asked to end."""
        for pod in self.pods(run_id):
            self.core.delete_namespaced_pod(
                pod.metadata.name, self.namespace, grace_period_seconds=0
            )

    def logs(self) -> str:
        """What the pods that are there have written."""
        written: list[str] = []
        for pod in self.core.list_namespaced_pod(self.namespace).items:
            name = pod.metadata.name
            try:
                answer = self.core.read_namespaced_pod_log(
                    name, self.namespace, _preload_content=False
                )
            except ApiException as error:
                written.append(f"== {name} has no log: {error.reason}")
            else:
                written.append(f"== {name}\n{answer.data.decode()}")
        return "\n".join(written)


@contextmanager
def cluster(folder: Path) -> Generator[Cluster]:
    """The cluster of this session. Skips where a real one is wanted that is not named in full."""
    if os.environ.get(_REAL):
        with _real() as made:
            yield made
    else:
        with fake_kubernetes(folder, [IMAGE], rights=launcher_rights()) as fake:
            yield _cluster(fake.kubeconfig, fake.limited, IMAGE, "127.0.0.1")
            assert fake.unknown() == []


def launcher_rights() -> Iterator[tuple[str, str]]:
    """What our manifests allow to workers in the namespace of run pods."""
    for held in yaml.safe_load_all(_ACCESS.read_text("utf-8")):
        if (held["kind"], held["metadata"]["name"]) == ("Role", "graphwright-launcher"):
            for rule in held["rules"]:
                yield from itertools.product(rule["verbs"], rule["resources"])


@contextmanager
def _real() -> Generator[Cluster]:
    values = {name: os.environ.get(f"GRAPHWRIGHT_TEST_{name}", "") for name in _NEEDED}
    if missing := [f"GRAPHWRIGHT_TEST_{name}" for name, value in values.items() if not value]:
        pytest.skip(f"without {', '.join(missing)} there is no cluster: see docs/kubernetes.md")
    kubeconfig = Path(values["KUBECONFIG"])
    made = _cluster(kubeconfig, kubeconfig, values["IMAGE"], values["HOST"])
    try:
        yield made
    finally:
        made.core.delete_namespace(made.namespace)


def _cluster(ours: Path, launchers: Path, image: str, host: str) -> Cluster:
    client = client_of(ours)
    core: Any = CoreV1Api(client)
    name = f"graphwright-test-{secrets.token_hex(4)}"
    core.create_namespace({"metadata": {"name": name, "labels": {ENFORCE: "restricted"}}})
    return Cluster(launchers, name, image, host, core, BatchV1Api(client))
