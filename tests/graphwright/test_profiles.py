"""``graphwright login`` and profiles, against a real API."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import Invalid
from graphwright.client import Client
from graphwright.commands.session import Session
from graphwright.profiles import (
    Profile,
    Profiles,
    config_folder,
    read_profiles,
    write_profiles,
)
from graphwright.sessions import KeptSession
from tests import forking
from tests.graphwright.scripted_api import Reply, api
from tests.live_api.conftest import TokenFor, api_url, token_for

__all__ = ["api_url", "token_for"]

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own configuration, of this test alone."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)  # where no stack is
    return tmp_path / "config" / "graphwright"


@pytest.fixture
def command() -> Command:
    def run(
        *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return forking.run(arguments, {**os.environ, **environment}, stdin)

    return run


@pytest.fixture
def api_key(api_url: str, token_for: TokenFor) -> dict[str, Any]:
    """A new key of tenant acme that may do everything."""
    with Client(api_url, token_for()) as client:
        made: Any = client.tokens.create("laptop", "admin")
    return made


def test_a_login_is_kept_used_and_forgotten(
    command: Command, home: Path, api_url: str, api_key: dict[str, Any]
) -> None:
    wrong = command("--api-url", api_url, "login", stdin="gw_12345678_wrong\n")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert not (home / "config.toml").exists()

    key = api_key["api_key"]
    for name in ("work", "other"):
        said = command("--profile", name, "--api-url", api_url, "login", stdin=f"{key}\n")
        assert said.returncode == 0, said.stderr
        assert "tenant acme, role admin" in said.stderr
        assert key not in said.stderr + said.stdout
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
    listed = [json.loads(line) for line in command("profiles").stdout.splitlines()]
    assert [(each["profile"], each["default"]) for each in listed] == [
        ("work", True),
        ("other", False),
    ]

    for arguments, environment in (
        ((), {}),
        (("--profile", "other"), {"GRAPHWRIGHT_TOKEN": "not used"}),
        ((), {"GRAPHWRIGHT_PROFILE": "other"}),
    ):
        said = command(*arguments, "token", "show", api_key["token_id"], **environment)
        assert said.returncode == 0, said.stderr
        assert json.loads(said.stdout)["name"] == "laptop"
    assert (home / "sessions" / "work.json").stat().st_mode & 0o777 == 0o600
    # The environment comes before the default profile.
    assert command("graph", "list", GRAPHWRIGHT_API_URL="http://127.0.0.1:9").returncode == 3

    assert command("logout").returncode == 0
    assert not (home / "sessions" / "work.json").exists()
    assert command("--profile", "work", "graph", "list").returncode == 1
    assert command("--profile", "other", "graph", "list").returncode == 0


def test_a_flag_is_stronger_than_the_environments_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    prod = Profile("prod", "https://prod.example.org", "k")
    write_profiles(Profiles({}).having(prod))
    monkeypatch.setenv("GRAPHWRIGHT_PROFILE", "prod")
    assert Session(None, api_url=None, token=None).profile() == prod
    assert Session(None, api_url="http://127.0.0.1:9", token=None).profile() is None
    assert Session(None, api_url=None, token="mine").profile() is None


@pytest.mark.parametrize("flag", ["--api-url", "--token"])
def test_a_profile_goes_without_other_flags(command: Command, flag: str) -> None:
    said = command("--profile", "prod", flag, "http://127.0.0.1:9", "graph", "list")
    assert said.returncode == 2
    assert "--profile" in said.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("graph", "show", "--json"),
        ("graph", "show", "g", "--bogus", "--json"),
        ("nothing", "--json"),
        ("--profile", "p", "--token", "t", "graph", "list", "--json"),
    ],
)
def test_wrong_usage_is_json_where_json_is_asked_for(
    command: Command, arguments: tuple[str, ...]
) -> None:
    said = command(*arguments)
    assert (said.returncode, said.stdout) == (2, "")
    assert json.loads(said.stderr)["code"] == "bad_usage"


def test_what_is_no_api_is_said(command: Command) -> None:
    with api(Reply(302, b"", {"Location": "https://login.example.org/"})) as told:
        said = command("--api-url", told.url, "graph", "list")
    assert (said.returncode, said.stdout) == (1, "")
    assert "login.example.org" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_session_is_kept_between_commands_and_renewed(
    home: Path, api_url: str, api_key: dict[str, Any]
) -> None:
    profile = Profile("work", api_url, api_key["api_key"])
    token = KeptSession(profile)()
    assert KeptSession(profile)() == token
    session = KeptSession(profile)
    assert session() == token
    renewed = session()  # asked again, since the API has refused the first
    assert renewed != token

    kept = home / "sessions" / "work.json"
    held = json.loads(kept.read_text("utf-8"))
    kept.write_text(json.dumps({**held, "renew_at": time.time() - 1}), "utf-8")
    another = KeptSession(profile)()
    assert another not in {token, renewed}
    with Client(api_url, another) as client:
        assert client.tokens.get(api_key["token_id"])["last_used_at"]

    kept.write_text("cut off", "utf-8")
    assert KeptSession(profile)() != another
    assert KeptSession(Profile("work", api_url, api_key["api_key"] + "x"))._digest() != held["of"]  # pyright: ignore[reportPrivateUsage]


def test_profiles_are_read_as_they_were_written(home: Path) -> None:
    assert read_profiles() == Profiles({})
    one = Profile("a-1", "https://x.example.org/ü", 'gw_"\\')
    known = Profiles({}).having(one).having(Profile("b", "http://y", "k"))
    write_profiles(known)
    assert read_profiles() == known
    assert known.default == "a-1"
    assert known.without("a-1").default is None
    assert 'gw_"' not in repr(known)
    assert config_folder() == home


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("default = ", "not TOML"),
        ("[profiles.a]\napi_url = 'x'", "not complete"),
        ("profiles = 1", "not complete"),
        ("[profiles.'a b']\napi_url = 'x'\napi_key = 'y'", "no name"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(home: Path, text: str, says: str) -> None:
    write_profiles(Profiles({}))
    (home / "config.toml").write_text(text, "utf-8")
    with pytest.raises(Invalid) as caught:
        read_profiles()
    assert says in str(caught.value)


def test_a_file_that_others_can_read_is_refused(home: Path, command: Command) -> None:
    write_profiles(Profiles({}).having(Profile("a", "http://127.0.0.1:9", "k")))
    (home / "config.toml").chmod(0o644)
    said = command("profiles")
    assert said.returncode == 2
    assert "chmod 600" in said.stderr
