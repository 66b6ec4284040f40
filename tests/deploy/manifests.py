"""The rendered manifests, as objects, and what several tests ask of them."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import yaml

Object: TypeAlias = dict[str, Any]

ROOT: Final = Path(__file__).parent.parent.parent
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("dev", "production")
OURS: Final = "graphwright"
RUNS: Final = "graphwright-runs"
STEPS: Final = "graphwright-steps"
COMPONENT: Final = "app.kubernetes.io/component"
_OLDEST_KUBECTL: Final = (1, 27)  # those before it order fields and objects in other ways
_WITH_PODS: Final = ("Deployment", "StatefulSet", "Job")


@dataclass(frozen=True)
class Pods:
    """The pods that one Deployment, StatefulSet or Job makes."""

    owner: Object

    @property
    def name(self) -> str:
        return self.owner["metadata"]["name"]

    @property
    def namespace(self) -> str:
        return self.owner["metadata"]["namespace"]

    @property
    def labels(self) -> Mapping[str, str]:
        return self.owner["spec"]["template"]["metadata"]["labels"]

    @property
    def spec(self) -> Object:
        return self.owner["spec"]["template"]["spec"]

    @property
    def container(self) -> Object:
        (container,) = self.spec["containers"]
        return container

    @property
    def role(self) -> str:
        """The command of ours that they run; empty for what is not ours."""
        return self.labels.get(COMPONENT, "") if self.container["name"] == OURS else ""

    @property
    def ports(self) -> Mapping[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    @property
    def mounts(self) -> Mapping[str, Object]:
        """By the name of their volumes."""
        return {mount["name"]: mount for mount in self.container.get("volumeMounts", [])}


@dataclass(frozen=True)
class Manifests:
    """What one overlay renders to."""

    overlay: str
    objects: list[Object]

    def of(self, *kinds: str) -> Iterator[Object]:
        return (each for each in self.objects if each["kind"] in kinds)

    def get(self, kind: str, name: str, namespace: str = OURS) -> Object:
        (found,) = (
            each
            for each in self.of(kind)
            if each["metadata"]["name"] == name and each["metadata"].get("namespace") == namespace
        )
        return found

    def pods(self) -> list[Pods]:
        return [Pods(each) for each in self.of(*_WITH_PODS)]

    def roles(self) -> dict[str, Pods]:
        """Ours, by their commands."""
        return {pods.role: pods for pods in self.pods() if pods.role}

    def settings(self, pods: Pods) -> dict[str, str]:
        """The variables that a role's container has from ConfigMaps and its own ``env``."""
        found: dict[str, str] = {}
        for source in pods.container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.get("ConfigMap", source["configMapRef"]["name"], pods.namespace)[
                    "data"
                ]
        return found | {each["name"]: each["value"] for each in pods.container.get("env", [])}


def rendered(overlay: str) -> Manifests:
    """The copy that is committed."""
    text = (KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8")
    return Manifests(overlay, list(yaml.safe_load_all(text)))


def kustomize(folder: Path) -> Manifests:
    """What a folder with a kustomization.yaml renders to now. Skips where that cannot be known."""
    return Manifests(folder.name, list(yaml.safe_load_all(kustomized(folder))))


def kustomized(folder: Path) -> str:
    """The same as text."""
    command = [_kubectl(), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _kubectl() -> str:
    """The program; skips where there is none, or too old a one."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not here: the rendered copies cannot be made anew")
    said = subprocess.run(
        [found, "version", "--client"], capture_output=True, text=True, check=True
    ).stdout
    version = re.search(r"v(\d+)\.(\d+)", said)
    assert version is not None, said
    if (int(version[1]), int(version[2])) < _OLDEST_KUBECTL:
        pytest.skip(f"kubectl is older than 1.27: {said.splitlines()[0]}")
    return found


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches; one that is absent matches nothing, an empty one all."""
    if selector is None:
        return False
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    if not wanted.items() <= labels.items():
        return False
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In", each
        if labels.get(each["key"]) not in each["values"]:
            return False
    return True


def selected(manifests: Manifests, by: Object, selector: Object) -> list[Pods]:
    """The pods of the same namespace that ``selector`` matches."""
    return [
        pods
        for pods in manifests.pods()
        if pods.namespace == namespace_of(by) and selects(selector, pods.labels)
    ]


def namespace_of(each: Object) -> str:
    return each["metadata"]["namespace"]
