"""The command ``graphwright``. Data goes to stdout, everything else to stderr."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from foundation.errors import GraphwrightError
from graphwright.commands import (
    audit,
    backfills,
    deliveries,
    doctor,
    execute_run,
    graphs,
    imports,
    login,
    members,
    prune,
    runs,
    secrets,
    serve,
    stack,
    tenants,
    tokens,
    triggers,
    workers,
)
from graphwright.commands.options import JsonGroup
from graphwright.commands.session import Session
from graphwright.terminal import FAILED, Terminal, exit_code

app = typer.Typer(
    name="graphwright",
    cls=JsonGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _part in (stack, serve, execute_run, login, doctor, prune):
    app.add_typer(_part.app)
for _name, _part in {
    "graph": graphs,
    "run": runs,
    "trigger": triggers,
    "delivery": deliveries,
    "backfill": backfills,
    "secret": secrets,
    "token": tokens,
    "member": members,
    "audit": audit,
    "worker": workers,
    "import": imports,
    "tenant": tenants,
}.items():
    app.add_typer(_part.app, name=_name, cls=JsonGroup)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("graphwright"))
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    state: Annotated[
        Path | None, typer.Option(help="State folder.  [GRAPHWRIGHT_STATE; .graphwright]")
    ] = None,
    api_url: Annotated[
        str | None, typer.Option(help="Where the API is.  [GRAPHWRIGHT_API_URL; the state folder]")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Bearer token.  [GRAPHWRIGHT_TOKEN; the state folder]")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="An API and a key that `login` has kept.  [GRAPHWRIGHT_PROFILE]"),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Graphwright: data pipelines on Dagster; graphs are data, runs are fast and live on screen.

    Exit codes: 0 done; 1 the operation or run failed; 2 wrong usage or an invalid document; 3 the
    stack cannot be reached.
    """
    alone = api_url is None and token is None
    if profile is not None and not alone and context.invoked_subcommand != "login":
        raise typer.BadParameter("--profile has an API and a key already: it goes without these")
    terminal = context.obj or Terminal()
    context.obj = Session(state, api_url, token, profile, terminal)


class BadUsage(GraphwrightError):
    """What Typer says of options and arguments, for ``--json``."""

    code = "bad_usage"


def main() -> None:
    """Run the command line and exit with its code."""
    terminal = Terminal()
    as_json = "--json" in sys.argv  # options that are wrong are not read any further
    try:
        # Standing alone, Typer writes errors of usage itself, as text, and exits.
        sys.exit(app(obj=terminal, standalone_mode=not as_json))
    except GraphwrightError as error:
        terminal.error(error)
        sys.exit(exit_code(error))
    except TyperException as error:
        terminal.json = as_json
        terminal.error(BadUsage(error.format_message()))
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(FAILED)
