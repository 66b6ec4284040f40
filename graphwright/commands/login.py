"""``login``, ``logout``, ``profiles``: which API, and as whom, kept for later."""

import sys
from typing import Annotated

import typer

from graphwright.commands.session import check_url, session

app = typer.Typer()

_FIRST = "default"


@app.command()
def login(
    context: typer.Context,
    make_default: Annotated[
        bool, typer.Option("--default", help="Use it from now on where no profile is named.")
    ] = False,
) -> None:
    """Keep an API key, read from standard input, as a profile: `graphwright --profile NAME login`.

    A terminal is asked for the key, and does not show it. The first profile is the default.
    """
    from dataclasses import replace

    from graphwright.client import Client
    from graphwright.profiles import Profile, check_name, read_profiles, write_profiles

    now = session(context)
    known = read_profiles()
    name = check_name(now.profile_name or _FIRST)
    url = now.api_url
    if url is None:
        there = known.profiles.get(name)
        url = now.settings().api_url if there is None else there.api_url
    key = _key()
    with Client(check_url(url)) as client:
        entered = client.auth.login(key)
        client.auth.logout(entered["refresh_token"])
    known = known.having(Profile(name, url.rstrip("/"), key))
    write_profiles(replace(known, default=name) if make_default else known)
    now.terminal.note(f"profile {name}: tenant {entered['tenant']}, role {entered['role']}")


@app.command()
def logout(context: typer.Context) -> None:
    """Forget a profile's key, and end its session."""
    from graphwright.profiles import check_name, read_profiles, write_profiles
    from graphwright.sessions import end_session

    known = read_profiles()
    profile = known.get(check_name(session(context).profile_name or known.default or _FIRST))
    write_profiles(known.without(profile.name))
    end_session(profile)


@app.command()
def profiles(context: typer.Context) -> None:
    """List the profiles, without their keys."""
    from graphwright.profiles import read_profiles

    known = read_profiles()
    found = (
        {"profile": each.name, "api_url": each.api_url, "default": each.name == known.default}
        for each in known.profiles.values()
    )
    session(context).terminal.rows(found, ("profile", "api_url", "default"))


def _key() -> str:
    from getpass import getpass

    given = getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline()
    key = given.strip()
    if not (key and key.isascii() and key.isprintable()):
        raise typer.BadParameter("standard input holds no API key")
    return key
