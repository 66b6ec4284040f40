"""A run, and the platform that places it in the fake, by Dagster's own launcher."""

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import BatchV1Api, CoreV1Api

from dynamic_jobs.launcher import GraphwrightRunLauncher
from dynamic_jobs.placing.base import Placed, PlacementRequest, Platform
from dynamic_jobs.workers.instance import open_instance
from foundation.ids import GraphId
from foundation.settings import Limits, Settings
from graph_defs.placement import Placement
from graph_defs.placement_policy import PlacementPolicy
from tests.dynamic_jobs.conftest import TENANT, graph, opened, value
from tests.kubernetes.server import ROOT, FakeKubernetes, client_of, fake_kubernetes
from tests.kubernetes.test_fake import IMAGE

OPERATORS = {
    "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
    "env_secrets": ["access"],
    "volumes": [
        {"name": "scratch", "empty_dir": {"size_limit": "1Gi"}},
        {"name": "key", "secret": {"secret_name": "key"}},
    ],
    "volume_mounts": [
        {"name": "scratch", "mount_path": "/tmp"},
        {"name": "key", "mount_path": "/etc/key", "read_only": True},
    ],
    "run_k8s_config": {
        "pod_spec_config": {"securityContext": {"runAsUser": 10001}, "priorityClassName": "low"},
        "job_spec_config": {"ttlSecondsAfterFinished": 60},
    },
}


@dataclass
class Placing:
    """A platform, and a run to place on it."""

    platform: Platform
    request: PlacementRequest
    core: Any
    batch: Any

    def ask(self, *, attempt: int = 1, **changes: Any) -> PlacementRequest:
        return replace(self.request, attempt=attempt, **changes)

    def place(self, **changes: Any) -> tuple[Any, Placed]:
        """The Job that is made for the run."""
        request = self.ask(**changes)
        where = self.platform.locate(request)
        self.platform.place(request)
        (made,) = self.batch.list_namespaced_job(where).items[-1:]
        return made, Placed(request.run_id, request.attempt, where)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Generator[FakeKubernetes]:
    with fake_kubernetes(tmp_path_factory.mktemp("idle"), [], executes=False) as fake:
        yield fake
        assert fake.unknown() == []


@pytest.fixture
def placing(
    fake: FakeKubernetes, settings: Settings, limits: Limits, tmp_path: Path
) -> Generator[Placing]:
    namespace = f"runs-{secrets.token_hex(4)}"
    fake.namespace(namespace)
    path = tmp_path / "dagster.yaml"
    path.write_text(dagster_yaml(fake.kubeconfig, namespace))
    with placing_by(path, fake, settings, limits) as placing:
        yield placing


@contextmanager
def placing_by(
    path: Path, fake: FakeKubernetes, settings: Settings, limits: Limits
) -> Generator[Placing]:
    """What the ``dagster.yaml`` at ``path`` comes to, and a run to place by it."""
    with (
        opened(settings.model_copy(update={"dagster_yaml": str(path)}), limits) as bench,
        open_instance(settings.state / "dagster", bench.runtime) as instance,
    ):
        version = bench.publish(graph({"a": value(1)}, name="small"))
        run = instance.get_run_by_id(bench.start(version))
        assert run is not None
        request = PlacementRequest(
            run=run,
            tenant=TENANT,
            graph_id=GraphId(version.graph_id),
            graph_name="small",
            attempt=1,
            resumes=False,
            placement=Placement.of({"isolation": "kubernetes"}),
            policy=PlacementPolicy.model_validate({}),
        )
        launcher = instance.run_launcher
        assert isinstance(launcher, GraphwrightRunLauncher)
        client = client_of(fake.kubeconfig)
        platform = launcher.platform("kubernetes")
        yield Placing(platform, request, CoreV1Api(client), BatchV1Api(client))


def dagster_yaml(kubeconfig: Path, namespace: str) -> str:
    found = yaml.safe_load((ROOT / "dagster.yaml").read_text("utf-8"))
    found["run_launcher"]["config"] = {
        "kubernetes": {
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig),
            "job_namespace": namespace,
            "job_image": IMAGE,
            "service_account_name": "default",
            "instance_config_map": "none",
            "dagster_home": "/var/lib/graphwright/dagster",
            **OPERATORS,
        }
    }
    return yaml.safe_dump(found)
