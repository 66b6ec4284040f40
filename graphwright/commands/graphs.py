"""``graph``: documents and the graphs made of them."""

from pathlib import Path
from typing import Annotated

import typer

from foundation.errors import GraphwrightError, Invalid, TooLarge
from graphwright.commands.session import session
from graphwright.terminal import DONE, USAGE, Terminal, exit_code

app = typer.Typer(help="Publish, check and list graphs.", no_args_is_help=True)

Files = Annotated[
    list[Path], typer.Argument(help="Graph documents, YAML or JSON.", exists=True, dir_okay=False)
]
Graph = Annotated[str, typer.Argument(help="The graph's name or id.")]


@app.command()
def apply(context: typer.Context, files: Files) -> None:
    """Create or update the graph of each document, and publish it."""
    now = session(context)
    worst = DONE
    with now.client() as client:
        for path in files:
            try:
                graph, created = client.apply(path.read_bytes(), is_json=path.suffix == ".json")
            except (Invalid, TooLarge) as error:
                _refuse(now.terminal, path, error)
                worst = exit_code(error)
                continue
            what = "new version" if created else "unchanged:"
            now.terminal.note(f"{graph['name']}: {what} {graph['version']}")
            now.terminal.data(graph)
    raise typer.Exit(worst)


@app.command()
def validate(context: typer.Context, files: Files) -> None:
    """Check documents without a stack; every fault on a line ``file:pointer: code message``."""
    import node_types
    from foundation.settings import Limits
    from graph_defs.admission import admit
    from graph_defs.catalogue import Catalogue

    terminal = session(context).terminal
    catalogue, limits = Catalogue.from_packages(node_types), Limits()
    worst = DONE
    for path in files:
        try:
            graph = admit(path.read_bytes(), catalogue, limits).graph
        except (Invalid, TooLarge) as error:
            _refuse(terminal, path, error)
            worst = USAGE
        else:
            terminal.note(f"{path}: {len(graph.nodes)} nodes, valid")
    raise typer.Exit(worst)


@app.command("list")
def list_graphs(context: typer.Context) -> None:
    """List the tenant's graphs: a table for people, one JSON object a line for programs."""
    now = session(context)
    with now.client() as client:
        now.terminal.rows(client.graphs(), ("name", "version", "updated_at", "graph_id"))


@app.command()
def show(context: typer.Context, graph: Graph) -> None:
    """Print a graph as JSON."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.graph(graph))


def _refuse(terminal: Terminal, path: Path, error: GraphwrightError) -> None:
    if isinstance(error, Invalid):
        terminal.faults(error.faults, str(path))
    else:
        terminal.err.print(f"{path}:: {error.code} {error.message}", markup=False)
