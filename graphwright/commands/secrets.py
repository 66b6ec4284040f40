"""``secret``: secrets of a tenant, which go in and never come out, and the master key."""

import sys
from typing import Annotated

import typer

from foundation.errors import Fault, Invalid
from graphwright.commands.session import session

app = typer.Typer(
    help="Set, list and delete secrets; rotate the key that they are encrypted under.",
    no_args_is_help=True,
)

_COLUMNS = ("name", "version", "created_at", "updated_at", "previous_until", "author")

Name = Annotated[str, typer.Argument(help="The secret's name.")]


@app.command("set")
def set_secret(
    context: typer.Context,
    name: Name,
    keep_previous_seconds: Annotated[
        float,
        typer.Option(
            help="For so long signatures made with the value that it had before are good too.",
            min=0,
        ),
    ] = 0,
) -> None:
    """Set a secret to the text on standard input, without one newline at its end.

    A terminal is asked for it, and does not show it. There is no way to read it back.
    """
    now = session(context)
    value = _asked(name) if sys.stdin.isatty() else _piped()
    with now.client() as client:
        secret, created = client.secrets.set(
            name, value, keep_previous_seconds=keep_previous_seconds
        )
    now.terminal.note("the secret is new" if created else "the secret was there already")
    now.terminal.data(secret)


@app.command("list")
def list_secrets(context: typer.Context) -> None:
    """List the tenant's secrets: names and times, never a value."""
    now = session(context)
    with now.client() as client:
        now.terminal.rows(client.secrets.list(), _COLUMNS)


@app.command()
def delete(context: typer.Context, name: Name) -> None:
    """Delete a secret. What needs it fails from then on."""
    now = session(context)
    with now.client() as client:
        client.secrets.delete(name)
    now.terminal.data({"name": name, "deleted": True})


@app.command()
def rotate_master_key(context: typer.Context) -> None:
    """Put a new master key in place of the current one, and print what was done.

    Secrets stay as they are, and can be used meanwhile. Run it where the master key is, as the user
    that its file belongs to; it asks the database, not the API.
    """
    import asyncio
    from dataclasses import asdict

    from foundation.database import async_connect
    from foundation.secret_store import Rotation, master_keys, rotate
    from graphwright.access import database_of, reaching_database

    now = session(context)
    settings = now.settings()
    keys = master_keys(settings)

    async def rotated() -> Rotation:
        async with await async_connect(database_of(settings)) as connection:
            return await rotate(connection, keys)

    with reaching_database():
        done = asyncio.run(rotated())
    if not done.retired:
        now.terminal.note(
            "The file of the master key is read-only: remove all lines but the first where it "
            "comes from."
        )
    now.terminal.data(asdict(done))


def _asked(name: str) -> str:
    from getpass import getpass

    return getpass(f"Value of {name}: ")


def _piped() -> str:
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        hint = "Pipe bytes through `base64`, for instance."
        fault = Fault("/value", "bad_value", "Standard input is not UTF-8.", hint)
        raise Invalid("The secret was not set.", [fault]) from None
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
