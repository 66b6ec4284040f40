"""What the global options said, handed to every command by Typer's context."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from graphwright.terminal import Terminal

if TYPE_CHECKING:
    from foundation.settings import Settings
    from graphwright.client import Client
    from graphwright.profiles import Profile

_PROFILE = "GRAPHWRIGHT_PROFILE"


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of the command line."""

    state: Path | None
    api_url: str | None
    token: str | None = field(repr=False)
    profile_name: str | None = None
    terminal: Terminal = field(default_factory=Terminal)

    def settings(self) -> "Settings":
        """The settings: global options first, then the environment, then the state folder.

        Raises Invalid for a value that a setting cannot have.
        """
        from pydantic import ValidationError

        from foundation.errors import Fault, Invalid
        from foundation.settings import Settings

        given = {"state": self.state, "api_url": self.api_url, "token": self.token}
        chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        try:
            return Settings(**chosen)
        except ValidationError as error:
            faults = [
                Fault(
                    "", "bad_setting", f"GRAPHWRIGHT_{str(fault['loc'][0]).upper()}: {fault['msg']}"
                )
                for fault in error.errors(include_url=False, include_input=False)
            ]
            raise Invalid("The settings have faults.", faults) from None

    def client(self) -> "Client":
        """By the profile that is named; else by the global options, the environment and the state
        folder; and where these name no token and no API, by the default profile."""
        from graphwright.client import Client, Retry
        from graphwright.sessions import KeptSession

        retry = Retry(attempts=3)  # people wait for it
        profile = self.profile()
        if profile is not None:
            return Client(check_url(profile.api_url), KeptSession(profile), retry=retry)
        settings = self.settings()
        if not (settings.token.isascii() and settings.token.isprintable()):
            raise typer.BadParameter("this is no token: it holds characters that no token has")
        return Client(check_url(settings.api_url), settings.token, retry=retry)

    def profile(self) -> "Profile | None":
        """The profile that counts, None where the global options or the installation's settings do.

        Raises NotFound for a name that there is not.
        """
        from graphwright.profiles import read_profiles

        name = self.profile_name
        if name is None and self.api_url is None and self.token is None:
            name = os.environ.get(_PROFILE)
        if name:
            return read_profiles().get(name)
        settings = self.settings()
        if {"token", "api_url"} & settings.model_fields_set:
            return None
        known = read_profiles()
        return None if known.default is None else known.get(known.default)


def check_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter("the API's URL must begin with http:// or https://")
    return url


def session(context: typer.Context) -> Session:
    found = context.obj
    assert isinstance(found, Session)
    return found
