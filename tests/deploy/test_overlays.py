"""Overlays of an operator's own, as the documentation has them, on top of ours."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.deploy.manifests import (
    KUBERNETES,
    OURS,
    ROOT,
    RUNS,
    STEPS,
    Manifests,
    Object,
    kustomize,
    namespace_of,
    selects,
)
from tests.deploy.test_rendered import faults

HEAD = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
PROXY = {"graphwright.dev/access": "dagster-ui"}
CONTROLLER = {"namespaceSelector": {"matchLabels": {"graphwright.dev/access": "ingress"}}}


@pytest.fixture
def kubernetes(tmp_path: Path) -> Path:
    """A copy of our folder, to which overlays may be added."""
    return shutil.copytree(KUBERNETES, tmp_path / "kubernetes")


def of(kubernetes: Path, name: str, text: str) -> Manifests:
    """What an overlay of this ``kustomization.yaml`` renders to; all of it is good."""
    folder = kubernetes / "overlays" / name
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(text)
    made = kustomize(folder)
    assert [said for each in made.objects for said in faults(each)] == []
    return made


def documented(page: str, name: str) -> str:
    """The kustomization of the overlay ``name`` that a page shows."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    (found,) = re.findall(
        rf"```yaml\n# overlays/{name}/kustomization.yaml\n(.*?)```", text, re.DOTALL
    )
    return found


def test_an_overlay_of_an_overlay_has_one_image_everywhere(kubernetes: Path) -> None:
    made = of(kubernetes, "own", documented("deploying.md", "own"))
    images = {pods.container["image"] for pods in made.roles().values()}
    (image,) = images
    assert image.startswith("registry.example.org/team/graphwright:")
    for pods in made.roles().values():
        assert made.settings(pods)["RUN_IMAGE"] == image
    accounts = [*made.of("ServiceAccount")]
    assert {namespace_of(each) for each in accounts} == {OURS, RUNS}
    assert all(each["imagePullSecrets"] == [{"name": "registry"}] for each in accounts)


def test_a_tenants_own_namespaces_are_closed_as_ours_are(
    kubernetes: Path, production: Manifests
) -> None:
    runs = of(kubernetes, "acme", documented("kubernetes.md", "acme"))
    steps = f"{HEAD}namespace: acme-steps\ncomponents: [../../components/step-namespace]\n"
    for like, own in ((RUNS, runs), (STEPS, of(kubernetes, "acme-steps", steps))):
        (namespace,) = own.of("Namespace")
        (like_it,) = (
            each for each in production.of("Namespace") if each["metadata"]["name"] == like
        )
        name = namespace["metadata"]["name"]
        for label, value in namespace["metadata"]["labels"].items():
            assert like_it["metadata"]["labels"][label] == value
        for kind in ("Role", "NetworkPolicy", "ServiceAccount", "RoleBinding"):
            ours = [each for each in production.of(kind) if namespace_of(each) == like]
            assert [bare(each) for each in own.of(kind)] == [bare(each) for each in ours], kind
            assert {namespace_of(each) for each in own.of(kind)} <= {name}


def test_a_proxy_before_the_dagster_ui_reaches_it_and_is_reached(
    kubernetes: Path, production: Manifests
) -> None:
    text = f"{HEAD}resources: [../production]\ncomponents: [../../components/dagster-ui-proxy]\n"
    made = of(kubernetes, "proxied", text)
    webserver = made.roles()["webserver"]
    (policy,) = allowing(made, PROXY)
    assert [rule["from"] for rule in policy["spec"]["ingress"]] == [[CONTROLLER]]
    reached = {
        port["port"]: rule["to"] for rule in policy["spec"]["egress"] for port in rule["ports"]
    }
    assert set(reached) == {53, 443, 3000}
    (peer,) = reached[3000]
    assert selects(peer["podSelector"], webserver.labels)
    assert {"podSelector": {"matchLabels": PROXY}} in [
        peer
        for policy in allowing(made, webserver.labels)
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
    ]
    assert allowing(production, PROXY) == [], "without the component it is cut off"


def allowing(manifests: Manifests, labels: Mapping[str, str]) -> list[Object]:
    """The policies for pods with these labels, but for the one that denies everything."""
    return [
        policy
        for policy in manifests.of("NetworkPolicy")
        if namespace_of(policy) == OURS
        and policy["spec"]["podSelector"]
        and selects(policy["spec"]["podSelector"], labels)
    ]


def test_tls_inside_the_cluster(kubernetes: Path, production: Manifests) -> None:
    text = f"{HEAD}resources: [../production]\ncomponents: [../../components/serving-tls]\n"
    made = of(kubernetes, "tls", text)
    serving = {role for role, pods in made.roles().items() if "tls" in pods.mounts}
    assert serving == {"api", "hooks"}
    for role in serving:
        pods = made.roles()[role]
        variables = made.settings(pods)
        folder = pods.mounts["tls"]["mountPath"]
        assert variables["GRAPHWRIGHT_TLS_CERTIFICATE_FILE"] == f"{folder}/tls.crt"
        assert variables["GRAPHWRIGHT_TLS_KEY_FILE"] == f"{folder}/tls.key"
    protocol = "nginx.ingress.kubernetes.io/backend-protocol"
    for each in made.of("Ingress"):
        assert each["metadata"]["annotations"][protocol] == "HTTPS"
    for pods in production.roles().values():
        assert "GRAPHWRIGHT_TLS_KEY_FILE" not in production.settings(pods)


def bare(each: Object) -> Object:
    """An object without what says where it is."""
    return {key: value for key, value in each.items() if key != "metadata"}
