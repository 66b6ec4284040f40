"""What the global options said, handed to every command by Typer's context."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from graphwright.terminal import Terminal

if TYPE_CHECKING:
    from foundation.settings import Settings
    from graphwright.client import Client


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of the command line."""

    state: Path | None
    api_url: str | None
    token: str | None = field(repr=False)
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
        from graphwright.client import Client

        settings = self.settings()
        if not settings.api_url.startswith(("http://", "https://")):
            raise typer.BadParameter("the API's URL must begin with http:// or https://")
        if not (settings.token.isascii() and settings.token.isprintable()):
            raise typer.BadParameter("this is no token: it holds characters that no token has")
        return Client(settings.api_url, settings.token)


def session(context: typer.Context) -> Session:
    found = context.obj
    assert isinstance(found, Session)
    return found
