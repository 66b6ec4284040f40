"""Namespaces and networks: what reaches what."""

from importlib.metadata import distribution
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.deploy.manifests import (
    COMPONENT,
    KUBERNETES,
    OURS,
    RUNS,
    STEPS,
    Manifests,
    Object,
    Pods,
    namespace_of,
    selected,
    selects,
)

RUN_PODS = {COMPONENT: "run_worker"}
SOLVER = {"acme.cert-manager.io/http01-solver": "true"}
"""Of cert-manager's pods for HTTP-01."""
NAMES = {"ipBlock": {"cidr": "169.254.20.10/32"}}
"""Of NodeLocal DNSCache."""
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")


def test_every_namespace_denies_what_no_policy_allows(manifests: Manifests) -> None:
    for namespace in (OURS, RUNS, STEPS):
        (everything,) = [
            policy
            for policy in policies(manifests, namespace)
            if policy["spec"]["podSelector"] == {}
        ]
        assert everything["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in everything["spec"]


def test_policies_select_pods_and_open_ports_that_they_have(manifests: Manifests) -> None:
    for policy in policies(manifests, OURS):
        pods = selected(manifests, policy, policy["spec"]["podSelector"])
        assert pods, policy["metadata"]["name"]
        listening = {port for each in pods for port in each.ports.values()}
        for rule in policy["spec"].get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= listening
            assert rule["from"], "an empty list is everybody"
    of_runs = [p for p in policies(manifests, RUNS) if p["spec"]["podSelector"]]
    assert of_runs
    assert all(selects(each["spec"]["podSelector"], RUN_PODS) for each in of_runs)
    launcher = distribution("dagster-k8s").locate_file("dagster_k8s/launcher.py")
    assert f'component="{RUN_PODS[COMPONENT]}"' in Path(str(launcher)).read_text("utf-8")


def test_the_dagster_ui_is_for_a_proxy_and_the_code_server_alone(manifests: Manifests) -> None:
    webserver = manifests.roles()["webserver"]
    rules = [rule for policy in policies(manifests, OURS) for rule in ingress(policy, webserver)]
    to_it = [rule for rule in rules if {"protocol": "TCP", "port": 3000} in rule["ports"]]
    assert [peer["podSelector"]["matchLabels"] for rule in to_it for peer in rule["from"]] == [
        {"graphwright.dev/access": "dagster-ui"},
        {"app.kubernetes.io/name": OURS, COMPONENT: "code"},
    ]
    assert not any("namespaceSelector" in peer for rule in to_it for peer in rule["from"])
    services = [
        path["backend"]["service"]["name"]
        for each in manifests.of("Ingress")
        for rule in each["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    assert "graphwright-webserver" not in services


def test_stores_are_reached_where_they_are_alone(manifests: Manifests) -> None:
    for namespace in (OURS, RUNS):
        peers = peers_at(manifests, namespace, 5432) + peers_at(manifests, namespace, 6379)
        assert peers
        for peer in peers:
            if manifests.overlay == "dev":
                assert "podSelector" in peer
            else:
                assert ip_network(peer["ipBlock"]["cidr"]).prefixlen >= 16


def test_workers_alone_reach_the_kubernetes_api(manifests: Manifests) -> None:
    assert {
        pods.role
        for policy in policies(manifests, OURS)
        for rule in policy["spec"].get("egress", [])
        if {"protocol": "TCP", "port": 6443} in rule["ports"]
        for pods in selected(manifests, policy, policy["spec"]["podSelector"])
    } == {"worker"}
    assert peers_at(manifests, RUNS, 6443) == []


def peers_at(manifests: Manifests, namespace: str, port: int) -> list[Any]:
    """Whom pods of ours in ``namespace`` reach at a port."""
    return [
        peer
        for policy in policies(manifests, namespace)
        for rule in policy["spec"].get("egress", [])
        if {"protocol": "TCP", "port": port} in rule["ports"]
        for peer in rule["to"]
    ]


def test_steps_reach_nothing_inside(manifests: Manifests) -> None:
    (policy,) = policies(manifests, STEPS)
    blocks = [
        peer["ipBlock"]
        for rule in policy["spec"]["egress"]
        for peer in rule["to"]
        if "ipBlock" in peer and peer != NAMES
    ]
    assert blocks
    for private in PRIVATE:
        for block in blocks:
            assert any(
                ip_network(private).subnet_of(ip_network(closed))  # pyright: ignore[reportArgumentType]
                for closed in block["except"]
            )
    assert not [each for each in manifests.of("ConfigMap") if namespace_of(each) == STEPS]


def test_names_are_found_where_nodes_have_a_cache_of_their_own(manifests: Manifests) -> None:
    asking = 0
    for policy in manifests.of("NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            if {"protocol": "UDP", "port": 53} in rule["ports"]:
                asking += 1
                assert NAMES in rule["to"]
                assert {port["port"] for port in rule["ports"]} == {53}
            else:
                assert NAMES not in rule["to"]
    assert asking == 3


def test_what_production_may_open_besides_is_for_pods_that_there_are(
    production: Manifests,
) -> None:
    file = KUBERNETES / "overlays" / "production" / "network.yaml"
    for policy in yaml.safe_load_all(file.read_text("utf-8")):
        kubernetes_validate.validate(policy, kubernetes_validate.latest_version(), strict=True)
        selector = policy["spec"]["podSelector"]
        assert (
            selects(selector, RUN_PODS)
            if namespace_of(policy) == RUNS
            else selected(production, policy, selector) or selects(selector, SOLVER)
        )


def policies(manifests: Manifests, namespace: str) -> list[Object]:
    return [each for each in manifests.of("NetworkPolicy") if namespace_of(each) == namespace]


def ingress(policy: Object, pods: Pods) -> list[Any]:
    """The rules by which ``policy`` lets others in to ``pods``."""
    matches = selects(policy["spec"]["podSelector"], pods.labels)
    return policy["spec"].get("ingress", []) if matches else []
