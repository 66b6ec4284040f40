"""``tenant set`` of where runs may be executed, and ``execute-run``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from foundation.database import connect
from foundation.errors import Invalid
from foundation.settings import Settings
from graphwright.cli import app

Command = Callable[..., Result]


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("GRAPHWRIGHT_STATE", str(settings.state))
    monkeypatch.setenv("GRAPHWRIGHT_DATABASE_URL", settings.database_url)
    with connect(settings.database_url) as connection:
        connection.execute("INSERT INTO graphwright.tenants (tenant) VALUES ('acme'), ('other')")
    runner = CliRunner()
    return lambda *given: runner.invoke(app, given)


def shown(command: Command, tenant: str = "acme") -> tuple[Any, Any]:
    policy = json.loads(command("tenant", "show", tenant).stdout)
    return policy["isolations"], policy["placement"]


def test_where_runs_of_a_tenant_may_be_executed(command: Command, tmp_path: Path) -> None:
    policy = tmp_path / "acme.yaml"
    policy.write_text("max_cpu: '2'\nkubernetes:\n  service_accounts: [etl]\n")
    assert shown(command) == (["warm", "process"], {})
    said = command(
        "tenant", "set", "acme", "--isolation", "kubernetes", "--isolation", "warm",
        "--placement", str(policy),
    )  # fmt: skip
    allowed = {"max_cpu": "2", "kubernetes": {"service_accounts": ["etl"]}}
    assert json.loads(said.stdout)["isolations"] == ["warm", "kubernetes"]
    assert shown(command) == (["warm", "kubernetes"], allowed)
    assert shown(command, "other") == (["warm", "process"], {})
    command("tenant", "set", "*", "--isolation", "warm")
    assert shown(command, "other") == (["warm"], {})
    command("tenant", "set", "acme", "--isolation", "none", "--placement", "none")
    assert shown(command) == (["warm"], {})


@pytest.mark.parametrize(
    ("given", "pointer", "code"),
    [
        (("--isolation", "cloud"), "--isolation", "bad_isolation"),
        (("--placement", "max_cpu: lots"), "/max_cpu", "bad_policy"),
        (("--placement", "max_memory: 1m"), "/max_memory", "bad_policy"),
        (
            ("--placement", "steps: {docker: {images: ['python:[0-9]']}}"),
            "/steps/docker/images/0",
            "bad_policy",
        ),
        (("--placement", "nodes: {}"), "/nodes", "bad_policy"),
    ],
)
def test_a_policy_that_makes_no_sense_changes_nothing(
    command: Command, tmp_path: Path, given: tuple[str, str], pointer: str, code: str
) -> None:
    option, value = given
    if option == "--placement":
        (tmp_path / "wrong.yaml").write_text(value)
        value = str(tmp_path / "wrong.yaml")
    said = command("tenant", "set", "acme", option, value)
    assert isinstance(said.exception, Invalid)
    assert [(fault.pointer, fault.code) for fault in said.exception.faults] == [(pointer, code)]
    assert shown(command) == (["warm", "process"], {})


@pytest.mark.parametrize("given", ["nonsense", '{"__class__": "DagsterRun"}'])
def test_execute_run_wants_a_run(command: Command, given: str) -> None:
    said = command("execute-run", "dagster", "api", "execute_run", given)
    assert isinstance(said.exception, Invalid)
