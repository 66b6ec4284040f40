"""Where a setting comes from."""

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from foundation.settings import STACK_FILE, Limits, Settings


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHWRIGHT_STATE", str(tmp_path))
    return tmp_path


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert settings.state == tmp_path / ".graphwright"
    assert settings.api_host == "127.0.0.1"
    assert not settings.http_private


def test_stack_file_is_read_from_the_state_folder(state: Path) -> None:
    (state / STACK_FILE).write_text(json.dumps({"api_port": 1, "other": "ignored"}))
    assert Settings().api_port == 1


def test_environment_wins_over_the_stack_file(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / STACK_FILE).write_text(json.dumps({"api_port": 1, "code_port": 2}))
    monkeypatch.setenv("GRAPHWRIGHT_API_PORT", "3")
    settings = Settings()
    assert (settings.api_port, settings.code_port) == (3, 2)


def test_the_token_of_a_stack_is_for_its_api_alone(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = {"api_url": "http://127.0.0.1:1", "token": "t"}
    (state / STACK_FILE).write_text(json.dumps(stack))
    assert Settings().token == "t"
    assert Settings(api_url="http://127.0.0.1:1/").token == "t"
    assert Settings(api_url="http://127.0.0.1:2").token == ""
    assert Settings(api_url="http://127.0.0.1:2", token="mine").token == "mine"
    monkeypatch.setenv("GRAPHWRIGHT_API_URL", "https://elsewhere.example.org")
    assert Settings().token == ""
    (state / STACK_FILE).write_text("{}")
    assert Settings().token == ""


def test_argument_wins_over_everything(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_API_PORT", "3")
    assert Settings(api_port=4).api_port == 4


def test_file_roots_are_separated_as_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_FILE_ROOTS", f"/a{os.pathsep}/b")
    assert Settings().file_roots == (Path("/a"), Path("/b"))


def test_secrets_are_not_shown() -> None:
    shown = repr(Settings(database_url="postgresql://u:secret@h/d", token="secret"))
    assert "secret" not in shown


@pytest.mark.parametrize("name", Limits.model_fields)
def test_limits_come_from_the_environment_and_are_positive(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"GRAPHWRIGHT_{name.upper()}"
    monkeypatch.setenv(variable, "7")
    assert getattr(Limits(), name) == 7
    monkeypatch.setenv(variable, "0")
    with pytest.raises(ValidationError):
        Limits()


@pytest.mark.parametrize("kind", [Settings, Limits])
def test_every_setting_says_what_it_is(kind: type[Settings] | type[Limits]) -> None:
    assert all(field.description for field in kind.model_fields.values())
