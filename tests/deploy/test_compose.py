"""The Compose file: good by its schema, closed by default, and no password in it."""

import json
import re
import shutil
import subprocess
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.manifests import ROOT, Object, rendered

TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
COMPOSE: Object = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if name not in ("postgres", "valkey")}


def test_the_file_is_good_by_its_schema() -> None:
    schemas = ROOT / "tests" / "deploy" / "schemas"
    schema = json.loads((schemas / "compose-spec.json").read_text("utf-8"))
    assert list(jsonschema.Draft7Validator(schema).iter_errors(COMPOSE)) == []


def test_docker_compose_reads_it() -> None:
    docker = shutil.which("docker")
    asked = [docker or "false", "compose", "version"]
    if docker is None or subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not here")
    passwords = {"POSTGRES_PASSWORD": "a", "REDIS_PASSWORD": "b"}
    command = [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    subprocess.run(command, env=passwords, check=True)


def test_every_role_of_the_cluster_is_there() -> None:
    assert set(OURS) == set(rendered("production").roles())
    assert {name: each["command"] for name, each in OURS.items()} == {name: [name] for name in OURS}


def test_no_password_has_a_default() -> None:
    for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        uses = re.findall(rf"\$\{{{name}[^}}]*\}}", TEXT)
        assert len(uses) >= 2
        assert set(uses) == {f"${{{name}:?}}"}


def test_ports_are_open_on_loopback_alone() -> None:
    published = [port for each in SERVICES.values() for port in each.get("ports", [])]
    assert published == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:3000:3000"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_no_more_rights_than_they_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "healthcheck" in service
    if name not in OURS:
        assert service["networks"] == ["inside"]
        assert service["user"] == "999:999"


def test_processes_that_lose_their_parent_are_reaped() -> None:
    """Of a run with ``isolation: process`` that is killed, whatever it had started is left."""
    assert SERVICES["worker"]["init"] is True


def test_the_stores_are_reached_from_inside_alone() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}


def test_volumes_and_networks_exist_and_are_used() -> None:
    mounted = {
        volume.partition(":")[0] for each in SERVICES.values() for volume in each.get("volumes", [])
    }
    assert mounted == COMPOSE["volumes"].keys()
    joined = {network for each in SERVICES.values() for network in each["networks"]}
    assert joined == COMPOSE["networks"].keys()


def test_services_are_found_by_their_names() -> None:
    variables = SERVICES["api"]["environment"]
    assert variables["GRAPHWRIGHT_CODE_HOST"] in SERVICES
    assert re.findall(r"@(\w+):|//(\w+):3000", json.dumps(variables)) == [
        ("postgres", ""), ("valkey", ""), ("", "webserver"),
    ]  # fmt: skip
