"""What an installation of several machines has otherwise: files, addresses, Dagster's processes."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from foundation.settings import Settings
from foundation.telemetry.health import Unwell
from graphwright.code_server import address
from graphwright.dagster_processes import heartbeat
from graphwright.home import NotReadable, enter_dagster_home
from live_api.identity import SigningKeyError, signing_key


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of this process, put back at the end."""
    copied = dict(os.environ)
    monkeypatch.setattr(os, "environ", copied)
    return copied


def test_a_dagster_yaml_of_ones_own_takes_the_place_of_ours(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("telemetry: {enabled: false}\n")
    enter_dagster_home(settings.model_copy(update={"dagster_yaml": str(own)}))
    assert Path(environment["DAGSTER_HOME"], "dagster.yaml").read_bytes() == own.read_bytes()


def test_one_that_is_not_there_is_told(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    missing = settings.model_copy(update={"dagster_yaml": str(tmp_path / "none.yaml")})
    with pytest.raises(NotReadable, match=r"none\.yaml cannot be read: No such file"):
        enter_dagster_home(missing)
    assert "DAGSTER_HOME" not in environment


def test_the_workspace_finds_the_code_server_by_its_settings(
    settings: Settings, environment: dict[str, str]
) -> None:
    enter_dagster_home(settings.model_copy(update={"code_host": "code.example", "code_port": 1}))
    assert environment["GRAPHWRIGHT_CODE_HOST"] == "code.example"
    assert environment["GRAPHWRIGHT_CODE_PORT"] == "1"


@pytest.mark.parametrize(
    ("host", "listens_on"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("::1", "::1"),
        ("graphwright-code", "0.0.0.0"),
        ("10.0.0.7", "0.0.0.0"),
    ],
)
def test_the_code_server_is_open_to_others_only_where_they_are_to_find_it(
    settings: Settings, host: str, listens_on: str
) -> None:
    assert address(settings.model_copy(update={"code_host": host})) == listens_on


@pytest.mark.parametrize(
    ("mode", "good"),
    [
        (0o600, True),
        (0o400, True),
        (0o440, True),
        (0o640, False),
        (0o444, False),
        (0o460, False),
    ],
)
def test_a_signing_key_may_be_mounted(tmp_path: Path, mode: int, good: bool) -> None:
    path = tmp_path / "signing.key"
    path.write_text("k" * 40)
    path.chmod(mode)
    if good:
        assert signing_key(tmp_path) == b"k" * 40
    else:
        with pytest.raises(SigningKeyError, match="can be read by others"):
            signing_key(tmp_path)


def test_a_daemon_is_ready_while_it_says_that_it_lives(settings: Settings) -> None:
    check = heartbeat(settings)
    with pytest.raises(Unwell, match="not yet"):
        check.ask()
    beat(settings, timedelta(seconds=300))
    with pytest.raises(Unwell, match=r"not for 3\d\d s"):  # and what has passed since
        check.ask()
    beat(settings, timedelta(seconds=60))
    check.ask()


def beat(settings: Settings, ago: timedelta) -> None:
    """A sign of life, as Dagster writes it."""
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO daemon_heartbeats (daemon_type, timestamp) VALUES ('SENSOR', %(at)s)"
            " ON CONFLICT (daemon_type) DO UPDATE SET timestamp = EXCLUDED.timestamp",
            {"at": (datetime.now(UTC) - ago).replace(tzinfo=None)},
        )
