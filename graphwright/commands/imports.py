"""``import``: other systems' workflows as graph documents."""

from pathlib import Path
from typing import Annotated

import typer

from foundation.errors import Fault, Invalid
from graphwright.commands.session import session

app = typer.Typer(help="Convert other systems' workflows to graph documents.", no_args_is_help=True)


@app.callback()
def callback() -> None:
    """Convert other systems' workflows to graph documents."""


@app.command()
def wfcommons(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A WfCommons instance (JSON).", dir_okay=False)],
    critical_path: Annotated[
        float, typer.Option(help="Seconds to which the traced critical path is scaled.", min=0.0)
    ] = 2.0,
) -> None:
    """Print a WfCommons trace as a graph document; what was changed goes to stderr."""
    import json

    from graph_defs.wfcommons import convert
    from graph_defs.yaml_text import write_yaml

    terminal = session(context).terminal
    try:
        instance = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(f"{file} cannot be read", [Fault("", "not_json", str(error))]) from error
    document, notes = convert(instance, critical_path)
    for note in notes:
        terminal.err.print(note, markup=False)
    typer.echo(write_yaml(document), nl=False)
