"""``graphwright doctor``: what it finds in installations that lack something."""

import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foundation.database import connect
from foundation.ids import new_id
from foundation.settings import Settings
from graphwright.doctor import Finding, backends, examine, folder, processes
from tests.graphwright.conftest import Stack


def states(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {each["check"]: each["state"] for each in findings}


@pytest.mark.xdist_group("stack")
@pytest.mark.timeout(300)
def test_a_stack_that_runs_is_well(stack: Stack) -> None:
    said = stack("doctor")
    found = [json.loads(line) for line in said.stdout.splitlines()]
    assert said.returncode == 0, found
    assert "wrong" not in states(found).values()
    expected = {
        "state folder", "signing key", "ports", "database", "clock", "migrations", "redis",
        "master key", "object store", "api", "token", "hooks", "workers", "dispatcher",
        "dagster UI", "code server", "dagster daemon",
    }  # fmt: skip
    assert expected <= states(found).keys()
    # The daemon may not have been heard of yet: `up` does not wait for it.
    assert [each for each in found if each["state"] != "ok"] == [
        each for each in found if each["says"] == "it was never heard of"
    ]
    bad_token = [json.loads(line) for line in stack("--token", "x", "doctor").stdout.splitlines()]
    assert states(bad_token)["token"] == "wrong"


def test_where_nothing_runs_it_says_how_to_start(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "none", api_url="http://127.0.0.1:9")
    found = {each.check: each for each in examine(settings)}
    assert found["database"].state == found["api"].state == "wrong"
    assert "graphwright up" in found["database"].mend
    assert found["workers"].state == "skipped"
    assert not (tmp_path / "none").exists()


def one(findings: list[Finding], check: str) -> Finding:
    (found,) = [each for each in findings if each.check == check]
    return found


def test_variables_that_are_no_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_WORKER_PROCESES", "4")
    (found,) = folder.environment(settings)
    assert found.state == "warning"
    assert "GRAPHWRIGHT_WORKER_PROCESSES?" in found.mend


def test_files_that_others_can_read(settings: Settings) -> None:
    settings.state.mkdir(mode=0o755)
    key = settings.state / "signing.key"
    key.write_bytes(b"k" * 43)
    key.chmod(0o644)
    (signing,) = folder.signing_key(settings)
    assert (signing.state, "chmod 600" in signing.mend) == ("wrong", True)
    assert next(folder.state_folder(settings)).state == "warning"
    settings.state.chmod(0o700)
    key.chmod(0o600)
    assert [each.state for each in folder.state_folder(settings)] == ["ok"]
    assert [each.state for each in folder.signing_key(settings)] == ["ok"]
    key.write_bytes(b"short")
    assert [each.state for each in folder.signing_key(settings)] == ["wrong"]


def test_a_port_that_another_program_holds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        settings = Settings(state=tmp_path, api_port=held.getsockname()[1], hooks_port=0)
        found = one(list(folder.ports(settings)), "ports")
    assert found.state == "warning"
    assert "GRAPHWRIGHT_API_PORT" in found.mend


def test_a_database_that_is_away_or_not_migrated(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:9/none"})
    assert [each.state for each in backends.database(away)] == ["wrong"]
    for check in (processes.workers, processes.dispatcher, backends.master_key):
        assert [each.state for each in check(away)] == ["skipped"]
    with connect(settings.database_url) as connection:
        (gone,) = connection.execute(
            "DELETE FROM graphwright.migrations WHERE name = (SELECT max(name) FROM"
            " graphwright.migrations) RETURNING name"
        ).fetchall()
        migrations = one(list(backends.database(settings)), "migrations")
        assert (migrations.state, gone["name"] in migrations.says) == ("wrong", True)
        assert "graphwright migrate" in migrations.mend
        connection.execute(
            "INSERT INTO graphwright.migrations (name) VALUES (%s), ('9999_new.sql')",
            [gone["name"]],
        )
        assert "later release" in one(list(backends.database(settings)), "migrations").says
        connection.execute("DELETE FROM graphwright.migrations WHERE name = '9999_new.sql'")
    found = list(backends.database(settings))
    assert {each.check for each in found if each.state == "ok"} >= {
        "database", "clock", "connections", "migrations",
    }  # fmt: skip


def test_redis_that_is_away_is_a_warning(settings: Settings) -> None:
    assert [each.state for each in backends.redis(settings)] == ["ok"]
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:9"})
    (found,) = backends.redis(away)
    assert found.state == "warning"
    assert [each.state for each in backends.redis(settings.model_copy(update={"redis_url": ""}))]


def test_redis_in_clear_is_a_warning(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://redis.invalid"})
    first, _ = backends.redis(away)
    assert (first.state, "rediss://" in first.mend) == ("warning", True)


def test_an_object_store_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    assert [each.state for each in backends.object_store(settings)] == ["ok"]
    file = tmp_path / "file"
    file.touch()
    blocked = settings.model_copy(update={"object_store": (file / "objects").as_uri()})
    assert [each.state for each in backends.object_store(blocked)] == ["wrong"]


def test_a_master_key_that_is_lost(settings: Settings) -> None:
    assert [each.state for each in backends.master_key(settings)] == ["ok"]
    with connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO graphwright.data_keys (tenant, data_key_id, wrapped, master_key)"
            " VALUES ('acme', %s, '', 'gone-key')",
            [new_id()],
        )
    (found,) = backends.master_key(settings)
    assert (found.state, "gone-key" in found.says) == ("wrong", True)
    assert not (settings.state / "master.key").exists()


def test_workers_that_are_dead_or_draining(settings: Settings) -> None:
    def add(seen: datetime, *, draining: bool) -> None:
        with connect(settings.database_url) as connection:
            connection.execute("DELETE FROM graphwright.workers")
            connection.execute(
                "INSERT INTO graphwright.workers (worker, host, pid, pool, draining, seen_at)"
                " VALUES (%s, 'h', 1, 1, %s, %s)",
                [new_id(), draining, seen],
            )

    now = datetime.now(UTC)
    assert [each.state for each in processes.workers(settings)] == ["wrong"]
    add(now, draining=False)
    assert [each.state for each in processes.workers(settings)] == ["ok"]
    add(now, draining=True)
    assert "draining" in one(list(processes.workers(settings)), "workers").says
    add(now - timedelta(minutes=5), draining=False)
    assert "none is alive" in one(list(processes.workers(settings)), "workers").says


def test_runs_that_a_platform_does_not_take(settings: Settings) -> None:
    with connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO graphwright.workers (worker, host, pid, pool) VALUES (%s, 'h', 1, 1)",
            [new_id()],
        )
        connection.execute(
            "INSERT INTO graphwright.placements"
            " (tenant, run_id, isolation, attempt, location, failures, reason)"
            " VALUES ('acme', %s, 'kubernetes', 1, 'runs', 2, 'no API server')",
            [new_id()],
        )
    found = one(list(processes.workers(settings)), "placing")
    assert found.state == "warning"
    assert "kubernetes: no API server" in found.says


@pytest.mark.parametrize(
    ("check", "name"), [(processes.dispatcher, "dispatcher"), (processes.api, "api")]
)
def test_a_process_that_does_not_run(
    settings: Settings, check: Callable[[Settings], Any], name: str
) -> None:
    nowhere = settings.model_copy(update={"api_url": "http://127.0.0.1:9"})
    found = one(list(check(nowhere)), name)
    assert (found.state, f"graphwright {name}" in found.mend) == ("wrong", True)


def test_dagster_that_does_not_run_is_a_warning(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"dagster_url": "http://127.0.0.1:9", "code_port": 9})
    assert {each.state for each in processes.dagster(nowhere)} == {"warning"}


def test_a_check_that_fails_is_a_finding(settings: Settings) -> None:
    with connect(settings.database_url) as connection:
        connection.execute("DROP TABLE graphwright.workers")
    found = one(list(examine(settings)), "workers")
    assert (found.state, "could not be checked" in found.says) == ("wrong", True)


def test_a_setting_that_is_wrong(stack_free: Callable[..., Any]) -> None:
    said = stack_free("doctor", GRAPHWRIGHT_API_PORT="many")
    assert said.returncode == 1
    (found,) = [json.loads(line) for line in said.stdout.splitlines()]
    assert (found["check"], found["state"]) == ("settings", "wrong")
    assert "GRAPHWRIGHT_API_PORT" in found["says"]


@pytest.fixture
def stack_free(tmp_path: Path) -> Stack:
    """The command line where no stack is."""
    return Stack(tmp_path, {**os.environ, "GRAPHWRIGHT_STATE": str(tmp_path / "state")})
