"""Image, Compose file and manifests agree with the code, and with each other."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from dagster._config import process_config
from dagster_k8s import K8sRunLauncher

from dynamic_jobs.launcher import GraphwrightRunLauncher
from dynamic_jobs.placing.kubernetes_pod import STATE, WRITABLE
from foundation.settings import Limits, Settings
from graphwright.cli import app
from graphwright.commands.options import JsonGroup
from tests.deploy.manifests import KUBERNETES, OURS, OVERLAYS, ROOT, Manifests, Pods

KNOWN = {
    f"GRAPHWRIGHT_{name.upper()}" for model in (Settings, Limits) for name in model.model_fields
}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
BASE = KUBERNETES / "base"
SECRETS = {  # what docs/deploying.md has an operator make, with their keys
    "graphwright-database": ["GRAPHWRIGHT_DATABASE_URL"],
    "graphwright-redis": ["GRAPHWRIGHT_REDIS_URL"],
    "graphwright-object-store": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
    "graphwright-master-key": ["master.key"],
    "graphwright-signing-key": ["signing.key"],
}
LISTENS_ON = {"api": "api", "hooks": "hooks", "code": "code", "webserver": "dagster"}
WITH_METRICS = ("api", "hooks", "worker", "dispatcher", "daemon")


def sources() -> Iterator[Path]:
    """Whatever says how our processes are to be started."""
    yield ROOT / "Dockerfile"
    yield ROOT / "docker-compose.yml"
    yield from sorted(path for path in KUBERNETES.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", [*sources()], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"\bGRAPHWRIGHT_[A-Z_]+[A-Z]", path.read_text("utf-8")))
    assert named <= KNOWN


def test_the_settings_of_each_role_are_good(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pods in manifests.roles().values():
        found = settings_of(manifests, pods, monkeypatch)
        assert found.log_format == "json"


def test_roles_listen_where_their_ports_and_probes_are(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role, pods in manifests.roles().items():
        settings = settings_of(manifests, pods, monkeypatch)
        expected: set[int] = {settings.metrics_port} if role in WITH_METRICS else set()
        if name := LISTENS_ON.get(role):
            expected.add(getattr(settings, f"{name}_port"))
            if name != "code":
                assert getattr(settings, f"{name}_host") == "0.0.0.0"
        assert set(pods.ports.values()) == expected, role
        assert settings.metrics_host == "0.0.0.0"


def test_every_role_that_stays_is_probed_on_a_port_it_has(manifests: Manifests) -> None:
    for role, pods in manifests.roles().items():
        probes = {key: each for key, each in pods.container.items() if key.endswith("Probe")}
        if role == "migrate":
            assert not probes
            continue
        assert set(probes) == {"startupProbe", "livenessProbe", "readinessProbe"}, role
        asked = {key: probed(pods, probe) for key, probe in probes.items()}
        if role in WITH_METRICS:
            assert set(asked.values()) == {(9464, "/healthz"), (9464, "/readyz")}
            assert asked["readinessProbe"] == (9464, "/readyz")
        else:
            own = {"code": (4000, "DagsterApi"), "webserver": (3000, "/server_info")}
            assert set(asked.values()) == {own[role]}


def probed(pods: Pods, probe: dict[str, Any]) -> tuple[int, str]:
    if "grpc" in probe:
        assert probe["grpc"]["port"] in pods.ports.values()
        return probe["grpc"]["port"], probe["grpc"]["service"]
    return pods.ports[probe["httpGet"]["port"]], probe["httpGet"]["path"]


def test_roles_are_commands_and_none_is_left_out(manifests: Manifests) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, JsonGroup)
    commands: set[str] = set(group.commands)
    for role, pods in manifests.roles().items():
        assert pods.container["args"] == [role]
        assert "command" not in pods.container, "the image's entry point is graphwright"
        assert role in commands
    assert set(manifests.roles()) == {
        "migrate", "api", "hooks", "worker", "dispatcher", "code", "webserver", "daemon",
    }  # fmt: skip
    assert 'ENTRYPOINT ["graphwright"]' in DOCKERFILE


def test_names_of_services_are_those_that_settings_have(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(manifests, manifests.roles()["code"], monkeypatch)
    (code,) = manifests.get("Service", settings.code_host)["spec"]["ports"]
    assert code["port"] == settings.code_port
    name, _, port = settings.dagster_url.removeprefix("http://").partition(":")
    (webserver,) = manifests.get("Service", name)["spec"]["ports"]
    assert webserver["port"] == int(port)


def test_secrets_are_those_that_the_documentation_has_made(manifests: Manifests) -> None:
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    for name, keys in SECRETS.items():
        assert f"`{name}`" in page
        assert all(f"`{key}`" in page for key in keys)
    for pods in manifests.roles().values():
        sources = [each["secretRef"]["name"] for each in pods.container["envFrom"][1:]]
        mounted = [
            each["secret"]["secretName"] for each in pods.spec["volumes"] if "secret" in each
        ]
        assert {*sources, *mounted} <= SECRETS.keys()
        assert sources[:2] == ["graphwright-database", "graphwright-redis"]


def test_keys_are_mounted_where_they_are_read(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = manifests.roles()
    assert {name for name, pods in roles.items() if "signing-key" in pods.mounts} == {"api"}
    signing = roles["api"].mounts["signing-key"]
    assert (signing["mountPath"], signing["subPath"]) == (f"{STATE}/signing.key", "signing.key")
    holders = {name for name, pods in roles.items() if "master-key" in pods.mounts}
    assert holders == {"api", "hooks", "worker", "dispatcher", "code"}
    for name in holders:
        settings = settings_of(manifests, roles[name], monkeypatch)
        folder = roles[name].mounts["master-key"]["mountPath"]
        assert settings.master_key_file == f"{folder}/master.key"
    run = manifests.get("ConfigMap", "graphwright-run", "graphwright-runs")["data"]
    mounts = launcher_config()["volume_mounts"]
    folders = {mount["name"]: mount["mount_path"] for mount in mounts}
    assert run["GRAPHWRIGHT_MASTER_KEY_FILE"] == f"{folders['master-key']}/master.key"


def test_workers_have_time_to_drain(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = manifests.roles()["worker"]
    settings = settings_of(manifests, pods, monkeypatch)
    longest = settings.drain_seconds + settings.cancel_grace_seconds + settings.lease_seconds
    assert pods.spec["terminationGracePeriodSeconds"] >= longest


def test_runs_in_pods_have_time_to_drain(manifests: Manifests) -> None:
    given = manifests.get("ConfigMap", "graphwright-run", "graphwright-runs")["data"]
    drain = float(given.get("GRAPHWRIGHT_DRAIN_SECONDS", Settings().drain_seconds))
    pod = launcher_config()["run_k8s_config"]["pod_spec_config"]
    longest = drain + Settings().cancel_grace_seconds + Settings().lease_seconds
    assert pod["termination_grace_period_seconds"] >= longest


def test_postgresql_has_connections_for_all_that_may_run(
    production: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    roles = production.roles()
    assert {role for role, _, _ in rows} == roles.keys() - {"migrate"}
    for role, _, processes in rows:
        each = settings_of(production, roles[role], monkeypatch).worker_processes
        assert int(processes) == most(production, roles[role].name) * (
            each if role == "worker" else 1
        )
    total = sum(int(connections) * int(processes) for _, connections, processes in rows)
    assert f"That is {total}," in page
    (wanted,) = re.findall(r"`max_connections = (\d+)`", page)
    assert int(wanted) >= total * 1.25, "an upgrade starts pods before it ends others"


def most(manifests: Manifests, name: str) -> int:
    """How many pods a Deployment has at most."""
    for each in manifests.of("HorizontalPodAutoscaler", "ScaledObject"):
        if each["spec"]["scaleTargetRef"]["name"] == name:
            return each["spec"].get("maxReplicas") or each["spec"]["maxReplicaCount"]
    return manifests.get("Deployment", name)["spec"].get("replicas", 1)


def test_a_worker_may_grow_to_what_its_settings_allow(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = manifests.roles()["worker"]
    settings = settings_of(manifests, pods, monkeypatch)
    limit = int(pods.container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
    assert limit >= settings.worker_processes * settings.worker_memory_mb


def test_the_image_is_the_same_everywhere(manifests: Manifests) -> None:
    images = {pods.container["image"] for pods in manifests.roles().values()}
    (image,) = images
    assert image.partition(":")[0] == OURS
    for pods in manifests.roles().values():
        assert manifests.settings(pods)["RUN_IMAGE"] == image
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    if manifests.overlay == "production":
        assert image == f"{OURS}:{version}"
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert f"image: {OURS}:${{IMAGE_TAG:-{version}}}" in compose
    assert f"--tag {OURS}:{version} " in DOCKERFILE


def test_the_image_keeps_its_state_where_volumes_are(manifests: Manifests) -> None:
    given = re.search(r"^ENV PATH=(?:.*\\\n)*.*", DOCKERFILE, re.MULTILINE)
    assert given is not None
    variables = dict(re.findall(r"(\w+)=(\S+)", given[0]))
    assert variables["GRAPHWRIGHT_STATE"] == variables["HOME"] == STATE
    assert variables["TMPDIR"] == WRITABLE["tmp"]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    for pods in manifests.roles().values():
        assert pods.mounts["state"]["mountPath"] == STATE
        assert pods.mounts["tmp"]["mountPath"] == WRITABLE["tmp"]
        context = pods.spec["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user


def test_the_cluster_has_our_dagster_yaml_but_for_the_launcher() -> None:
    own = yaml.safe_load((ROOT / "dagster.yaml").read_text("utf-8"))
    cluster = yaml.safe_load((BASE / "dagster.yaml").read_text("utf-8"))
    own["run_launcher"].pop("config")
    cluster["run_launcher"].pop("config")
    assert cluster == own
    assert (cluster["run_launcher"]["module"], cluster["run_launcher"]["class"]) == (
        GraphwrightRunLauncher.__module__,
        GraphwrightRunLauncher.__name__,
    )


def test_dagsters_launcher_takes_its_configuration(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUN_IMAGE", "graphwright:1")
    config = launcher_config()
    outcome = process_config(K8sRunLauncher.config_type(), config)
    assert outcome.success, outcome.errors
    assert outcome.value is not None
    assert outcome.value["job_image"] == "graphwright:1"
    namespace = config["job_namespace"]
    manifests.get("ServiceAccount", config["service_account_name"], namespace)
    for name in config["env_config_maps"]:
        manifests.get("ConfigMap", name, namespace)
    assert set(config["env_secrets"]) <= SECRETS.keys()
    assert {each["name"] for each in config["volumes"]} == {
        each["name"] for each in config["volume_mounts"]
    }


def test_runs_in_pods_have_the_stores_of_the_workers(manifests: Manifests) -> None:
    """What one role writes, the others must find."""
    run = manifests.get("ConfigMap", "graphwright-run", "graphwright-runs")["data"]
    worker = manifests.settings(manifests.roles()["worker"])
    shared = ("OBJECT_STORE", "INLINE_OUTPUT_BYTES", "MASTER_KEY_FILE")
    names = [*(f"GRAPHWRIGHT_{name}" for name in shared), "PGSSLMODE", "PGSSLROOTCERT"]
    assert {name: run.get(name) for name in names} == {name: worker.get(name) for name in names}


def test_production_checks_who_the_database_is(production: Manifests) -> None:
    for pods in production.roles().values():
        variables = production.settings(pods)
        assert variables["PGSSLMODE"] == "verify-full"
        assert Path(variables["PGSSLROOTCERT"]).parent == Path(
            pods.mounts["authority"]["mountPath"]
        )


def test_alerts_are_those_of_the_documentation(production: Manifests) -> None:
    (rule,) = production.of("PrometheusRule")
    page = (ROOT / "docs" / "monitoring" / "alerts.yaml").read_text("utf-8")
    assert rule["spec"] == yaml.safe_load(page)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_scaling_asks_for_metrics_that_there_are(overlay: str) -> None:
    asked = set(re.findall(r"\bgraphwright_\w+", json.dumps(list_of_queries(overlay))))
    page = (ROOT / "docs" / "observability.md").read_text("utf-8")
    assert all(f"| `{name}` |" in page for name in asked)


def list_of_queries(overlay: str) -> list[str]:
    text = (KUBERNETES / "rendered" / f"{overlay}.yaml").read_text("utf-8")
    return [
        trigger["metadata"]["query"]
        for each in yaml.safe_load_all(text)
        if each["kind"] == "ScaledObject"
        for trigger in each["spec"]["triggers"]
    ]


def launcher_config() -> dict[str, Any]:
    """Of the Kubernetes platform."""
    text = (BASE / "dagster.yaml").read_text("utf-8")
    return yaml.safe_load(text)["run_launcher"]["config"]["kubernetes"]


def settings_of(manifests: Manifests, pods: Pods, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the role reads, in the image and with the variables of its container."""
    with monkeypatch.context() as environment:
        environment.setenv("GRAPHWRIGHT_STATE", STATE)
        for name, value in manifests.settings(pods).items():
            environment.setenv(name, value)
        return Settings()
