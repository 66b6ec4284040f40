"""Profiles of the command line: which API, and as whom. Kept in the user's ``config.toml``.

default = "prod"

[profiles.prod]
api_url = "https://graphwright.example.org"
api_key = "gw_…"
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from foundation import private_file
from foundation.errors import Fault, Invalid, NotFound

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Profile:
    """An API, and the API key to log in with."""

    name: str
    api_url: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles of a user, and which one counts when none is named."""

    profiles: Mapping[str, Profile]
    default: str | None = None

    def get(self, name: str) -> Profile:
        """Raises NotFound."""
        if name not in self.profiles:
            raise NotFound(
                f"there is no profile {name}",
                hint=f"`graphwright --profile {name} login` makes it.",
            )
        return self.profiles[name]

    def having(self, profile: Profile) -> Self:
        """These and one more; the first is the default."""
        known = {**self.profiles, profile.name: profile}
        return type(self)(known, self.default or profile.name)

    def without(self, name: str) -> Self:
        known = {key: each for key, each in self.profiles.items() if key != name}
        return type(self)(known, self.default if self.default != name else None)


def config_folder() -> Path:
    """Where the user's own files are, by the XDG base directory specification."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "graphwright"


def check_name(name: str) -> str:
    """Raises Invalid."""
    if not _NAME.fullmatch(name):
        hint = "1 to 63 letters, digits, - and _, beginning with a letter or digit."
        raise Invalid(f"{name!r} is no name of a profile", [Fault("", "bad_name", name, hint)])
    return name


def read_profiles() -> Profiles:
    """Raises Invalid where others can read the file, or it is not as it should be."""
    path = config_folder() / "config.toml"
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise _bad(path, "others can read it, and it holds keys", f"chmod 600 {path}")
            content = tomllib.load(file)
    except FileNotFoundError:
        return Profiles({})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad(path, f"it is not TOML: {error}", "Mend it, or remove it.") from None
    try:
        return _profiles(content)
    except (KeyError, TypeError, AttributeError):
        hint = 'Each [profiles.NAME] has an api_url = "…" and an api_key = "…".'
        raise _bad(path, "a profile is not complete", hint) from None


def write_profiles(profiles: Profiles) -> None:
    """Replace the file; comments in it are lost."""
    path = config_folder() / "config.toml"
    lines = [] if profiles.default is None else [f"default = {_text(profiles.default)}"]
    for name, each in profiles.profiles.items():
        lines += ["", f"[profiles.{name}]", f"api_url = {_text(each.api_url)}"]
        lines.append(f"api_key = {_text(each.api_key)}")
    private_file.create_once(path, b"")
    private_file.replace(path, ("\n".join(lines).lstrip() + "\n").encode())


def _profiles(content: Mapping[str, Any]) -> Profiles:
    found = {
        check_name(name): Profile(name, str(given["api_url"]), str(given["api_key"]))
        for name, given in content.get("profiles", {}).items()
    }
    return Profiles(found, content.get("default"))


def _text(value: str) -> str:
    # Of what a URL, a key and a name can hold, JSON's strings are TOML's.
    return json.dumps(value, ensure_ascii=False)


def _bad(path: Path, what: str, hint: str) -> Invalid:
    return Invalid(f"{path} cannot be used", [Fault("", "bad_profile", what, hint)])
