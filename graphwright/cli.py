"""The command ``graphwright``. Data goes to stdout, everything else to stderr."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from foundation.errors import GraphwrightError
from graphwright.commands import graphs, imports, runs, serve, stack
from graphwright.commands.session import Session
from graphwright.terminal import Terminal, exit_code

app = typer.Typer(
    name="graphwright",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(stack.app)
app.add_typer(serve.app)
app.add_typer(graphs.app, name="graph")
app.add_typer(runs.app, name="run")
app.add_typer(imports.app, name="import")


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
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Graphwright: data pipelines on Dagster; graphs are data, runs are fast and live on screen.

    Exit codes: 0 done; 1 the operation or run failed; 2 wrong usage or an invalid document; 3 the
    stack cannot be reached.
    """
    context.obj = Session(state, api_url, token)


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except GraphwrightError as error:
        Terminal().error(error)
        sys.exit(exit_code(error))
