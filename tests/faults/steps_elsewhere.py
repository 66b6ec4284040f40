"""Platforms for steps: what they have running there can be seen, and let go to its end."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import docker
from kubernetes.client import CoreV1Api

from tests.containers.image import IMAGE as CONTAINER_IMAGE
from tests.containers.image import make_image
from tests.containers.socket import docker_socket
from tests.kubernetes.server import client_of, fake_kubernetes

UP: Final = "the step is up"
"""What each step writes first."""
_IMAGE: Final = "registry.example.org/team/etl:1"
_NAMESPACE: Final = "steps"
_FILE: Final = "/tmp/go"
_SCRIPT: Final = f'echo "{UP}"; while [ ! -e "$1" ]; do sleep 0.05; done'


class Elsewhere(Protocol):
    """A platform, without the installation that uses it."""

    node_type: str
    image: str
    policy: dict[str, Any]
    """What its operator allows to tenants."""
    environment: dict[str, str]
    """By which workers find it."""

    def there(self) -> set[str]:
        """What there is of steps, whether it runs or not."""
        ...

    def let_go(self, name: str) -> None:
        """Have a step end with success."""
        ...


def node(where: Elsewhere, *needs: str) -> dict[str, Any]:
    """A step that runs until it is let go."""
    given = {"image": where.image, "command": ["sh", "-c"], "args": [_SCRIPT, "sh", _FILE]}
    return {"type": where.node_type, "needs": list(needs), "with": given}


class _Pods:
    node_type = "kubernetes.job"
    image = _IMAGE

    def __init__(self, folder: Path, kubeconfig: Path, core: Any) -> None:
        self.policy: dict[str, Any] = {"kubernetes": {"images": [_IMAGE], "namespace": _NAMESPACE}}
        self.environment = {"KUBECONFIG": str(kubeconfig)}
        self._folder = folder
        self._core = core

    def there(self) -> set[str]:
        return {pod.metadata.name for pod in self._core.list_namespaced_pod(_NAMESPACE).items}

    def let_go(self, name: str) -> None:
        """The fake's pods have their volumes in folders."""
        uid = self._core.read_namespaced_pod(name, _NAMESPACE).metadata.uid
        (self._folder / "pods" / uid / "volumes" / "tmp" / "go").touch()


@contextmanager
def pods(folder: Path) -> Generator[Elsewhere]:
    """The fake API server, whose pods are local processes."""
    rights = [(verb, "pods") for verb in ("create", "get", "list", "delete")]
    with fake_kubernetes(folder, [_IMAGE], rights=[*rights, ("get", "pods/log")]) as fake:
        fake.namespace(_NAMESPACE)
        yield _Pods(folder, fake.limited, CoreV1Api(client_of(fake.kubeconfig)))
        assert fake.unknown() == []


class _Containers:
    node_type = "docker.run"
    image = CONTAINER_IMAGE

    def __init__(self, host: str, client: docker.DockerClient) -> None:
        self.policy: dict[str, Any] = {"docker": {"images": [CONTAINER_IMAGE]}}
        self.environment = {"DOCKER_HOST": host}
        self._client = client

    def there(self) -> set[str]:
        api: Any = self._client.api
        found = api.containers(all=True, filters={"label": "graphwright.dev/node"})
        return {each["Id"] for each in found}

    def let_go(self, name: str) -> None:
        self._client.containers.get(name).exec_run(["touch", _FILE])


@contextmanager
def containers(_folder: Path) -> Generator[Elsewhere]:
    """A real Docker-compatible socket. Skips where none answers."""
    with docker_socket() as host:
        make_image(host)
        client = docker.DockerClient(base_url=host)
        try:
            yield _Containers(host, client)
        finally:
            client.close()
