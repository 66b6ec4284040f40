"""The Job that the deployed ``dagster.yaml`` makes of a run, by Dagster's launcher and the fake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from foundation.settings import Limits, Settings
from tests.deploy.manifests import KUBERNETES, RUNS, Manifests
from tests.deploy.test_wiring import rights
from tests.kubernetes.placing import placing_by
from tests.kubernetes.server import FakeKubernetes, fake_kubernetes


def test_the_job_of_a_run(
    production: Manifests,
    settings: Settings,
    limits: Limits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = production.settings(production.roles()["worker"])
    monkeypatch.setenv("RUN_IMAGE", worker["RUN_IMAGE"])
    role = rights(production.get("Role", "graphwright-launcher", RUNS))
    allowed = [(verb, resource) for resource, verbs in role.items() for verb in verbs]
    with fake_kubernetes(tmp_path, [], executes=False, rights=allowed) as fake:
        fake.namespace(RUNS)
        account = production.get("ServiceAccount", "graphwright-run", RUNS)
        fake.create(f"/api/v1/namespaces/{RUNS}/serviceaccounts", account)
        path = tmp_path / "dagster.yaml"
        path.write_text(deployed(fake))
        with placing_by(path, fake, settings, limits) as placing:
            made, placed = placing.place()
            placing.platform.health(placed)
            placing.platform.remove(placed)
        assert fake.unknown() == []
    assert made.metadata.namespace == RUNS
    check_pod(made.spec.template.spec.to_dict(), worker)


def deployed(fake: FakeKubernetes) -> str:
    """The file of the manifests, but for the way to the API server, with the rights of a worker."""
    found = yaml.safe_load((KUBERNETES / "base" / "dagster.yaml").read_text("utf-8"))
    found["run_launcher"]["config"]["kubernetes"] |= {
        "load_incluster_config": False,
        "kubeconfig_file": str(fake.limited),
    }
    return yaml.safe_dump(found)


def check_pod(pod: dict[str, Any], worker: dict[str, str]) -> None:
    """As the client has it, with the names of Python."""
    assert pod["service_account_name"] == "graphwright-run"
    assert pod["automount_service_account_token"] is False
    assert pod["security_context"]["run_as_user"] == 10001
    (container,) = pod["containers"]
    assert container["image"] == worker["RUN_IMAGE"]
    assert container["command"] == ["graphwright", "execute-run"]
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    assert {
        source[kind]["name"]
        for source in container["env_from"]
        for kind in ("config_map_ref", "secret_ref")
        if source[kind]
    } == {
        "graphwright-run",
        "graphwright-database",
        "graphwright-redis",
        "graphwright-object-store",
    }
    mounts = {mount["mount_path"]: mount["name"] for mount in container["volume_mounts"]}
    assert mounts == {
        "/etc/graphwright/master-key": "master-key",
        "/etc/graphwright/authority": "authority",
        "/var/lib/graphwright": "state",
        "/tmp": "tmp",
    }
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts.values())
