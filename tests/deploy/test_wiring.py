"""The objects of an overlay fit together: what names, selects or mounts something finds it."""

from tests.deploy.manifests import (
    COMPONENT,
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

ELSEWHERE = ("configMap", "secret", "emptyDir")


def test_deployments_and_services_select_their_pods(manifests: Manifests) -> None:
    for each in manifests.of("Deployment", "StatefulSet"):
        assert selects(each["spec"]["selector"], Pods(each).labels)
    for service in manifests.of("Service"):
        (pods,) = selected(manifests, service, {"matchLabels": service["spec"]["selector"]})
        for port in service["spec"]["ports"]:
            assert pods.ports[port["targetPort"]] == port["port"]


def test_no_selector_reaches_into_another_role(manifests: Manifests) -> None:
    for each in manifests.of("Deployment", "StatefulSet"):
        assert [pods.name for pods in selected(manifests, each, each["spec"]["selector"])] == [
            each["metadata"]["name"]
        ]


def test_mounts_have_volumes_and_no_volume_is_idle(manifests: Manifests) -> None:
    for pods in manifests.pods():
        volumes = {volume["name"] for volume in pods.spec.get("volumes", [])}
        assert volumes == set(pods.mounts), pods.name
        for volume in pods.spec["volumes"]:
            assert next(key for key in volume if key != "name") in ELSEWHERE
            config = volume.get("configMap")
            if config is not None and not config.get("optional"):
                manifests.get("ConfigMap", config["name"], pods.namespace)


def test_budgets_leave_something_to_take(manifests: Manifests) -> None:
    for budget in manifests.of("PodDisruptionBudget"):
        (pods,) = selected(manifests, budget, budget["spec"]["selector"])
        assert least(manifests, pods.name) > budget["spec"]["maxUnavailable"] >= 1


def test_what_scales_names_a_deployment_that_leaves_its_size_open(manifests: Manifests) -> None:
    for each in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        target = manifests.get("Deployment", each["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"], "it would be set back with each deployment"


def test_there_is_one_daemon_at_a_time(manifests: Manifests) -> None:
    daemon = manifests.roles()["daemon"].owner["spec"]
    assert (daemon["replicas"], daemon["strategy"]["type"]) == (1, "Recreate")


def test_processes_that_lose_their_parent_are_reaped(manifests: Manifests) -> None:
    """As in the Compose file, but by the pod's pause container."""
    assert manifests.roles()["worker"].spec["shareProcessNamespace"] is True


def test_only_workers_have_a_token_and_it_is_good_for_little(manifests: Manifests) -> None:
    assert {
        pods.name for pods in manifests.pods() if pods.spec["automountServiceAccountToken"]
    } == {"graphwright-worker"}
    accounts = {
        (namespace_of(each), each["metadata"]["name"]) for each in manifests.of("ServiceAccount")
    }
    for pods in manifests.pods():
        if pods.role:
            assert (pods.namespace, pods.spec["serviceAccountName"]) in accounts
    assert not list(manifests.of("ClusterRole", "ClusterRoleBinding"))
    for binding in manifests.of("RoleBinding"):
        assert namespace_of(binding) in (RUNS, STEPS)
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": "graphwright-worker", "namespace": OURS}
        ]
        manifests.get("Role", binding["roleRef"]["name"], namespace_of(binding))
    assert {namespace_of(role): rights(role) for role in manifests.of("Role")} == {
        RUNS: {
            "jobs": {"create", "delete"},
            "jobs/status": {"get"},
            "pods": {"list"},
            "events": {"list"},
        },
        STEPS: {"pods": {"create", "delete", "get", "list"}, "pods/log": {"get"}},
    }


def test_nothing_secret_is_contained(manifests: Manifests) -> None:
    assert not list(manifests.of("Secret"))


def test_monitors_find_ports_of_every_role_with_metrics(production: Manifests) -> None:
    (monitor,) = production.of("ServiceMonitor")
    found = {
        service["spec"]["selector"][COMPONENT]
        for service in production.of("Service")
        if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
        for port in service["spec"]["ports"]
        if port["name"] == monitor["spec"]["endpoints"][0]["port"]
    }
    assert found == {"api", "hooks", "worker", "dispatcher", "daemon"}


def test_what_comes_from_outside_comes_by_tls(production: Manifests) -> None:
    for each in production.of("Ingress"):
        secured = {host for tls in each["spec"]["tls"] for host in tls["hosts"]}
        for rule in each["spec"]["rules"]:
            assert rule["host"] in secured
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                ports = production.get("Service", backend["name"])["spec"]["ports"]
                assert backend["port"]["name"] in {port["name"] for port in ports}


def rights(role: Object) -> dict[str, set[str]]:
    return {name: set(rule["verbs"]) for rule in role["rules"] for name in rule["resources"]}


def least(manifests: Manifests, name: str) -> int:
    """How many pods a Deployment has at least."""
    for each in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        if each["spec"]["scaleTargetRef"]["name"] == name:
            return each["spec"].get("minReplicas") or each["spec"]["minReplicaCount"]
    return manifests.get("Deployment", name)["spec"].get("replicas", 1)
