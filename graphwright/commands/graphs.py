"""``graph``: documents and the graphs made of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from foundation.errors import GraphwrightError, Invalid, TooLarge
from graphwright.commands.session import session
from graphwright.terminal import DONE, USAGE, Terminal, exit_code

app = typer.Typer(
    help="Publish, check, compare, roll back, pause and list graphs.", no_args_is_help=True
)

_COLUMNS = ("name", "version", "labels", "paused", "updated_at", "graph_id")

Files = Annotated[
    list[Path], typer.Argument(help="Graph documents, YAML or JSON.", exists=True, dir_okay=False)
]
Graph = Annotated[str, typer.Argument(help="The graph's name or id.")]
IfMatch = Annotated[
    str | None, typer.Option(metavar="ETAG", help="Only if it is still as this etag says.")
]


@app.command()
def apply(context: typer.Context, files: Files, if_match: IfMatch = None) -> None:
    """Create or update the graph of each document, and publish it."""
    now = session(context)
    worst = DONE
    with now.client() as client:
        for path in files:
            try:
                graph, created = client.graphs.apply(path.read_bytes(), if_match=if_match)
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
def list_graphs(
    context: typer.Context,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="With it; may be repeated.")
    ] = None,
) -> None:
    """List the tenant's graphs: a table for people, one JSON object a line for programs."""
    now = session(context)
    with now.client() as client:
        now.terminal.rows(client.graphs.list(label=labels(label)), _COLUMNS)


@app.command()
def show(context: typer.Context, graph: Graph) -> None:
    """Print a graph as JSON, with its document."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.graphs.get(graph))


@app.command()
def versions(context: typer.Context, graph: Graph) -> None:
    """List a graph's versions, newest first."""
    now = session(context)
    with now.client() as client:
        columns = ("version", "fingerprint", "author", "created_at")
        now.terminal.rows(client.graphs.versions(graph), columns)


@app.command()
def diff(
    context: typer.Context,
    graph: Graph,
    begin: Annotated[
        int | None, typer.Option("--from", help="A version; else the one before the other.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="A version or draft; else the published one.")
    ] = None,
) -> None:
    """Show how two versions of a graph differ, as a patch by RFC 6902."""
    now = session(context)
    with now.client() as client:
        last: Any = end or client.graphs.get(graph)["version"]
        if begin is None:
            published = client.graphs.get(graph)["version"] if last == "draft" else None
            begin = published or max(int(last) - 1, 1)
        found = client.graphs.diff(graph, begin, last)
    if now.terminal.for_people:
        from graphwright.showing import diff_lines

        for line in diff_lines(found):
            now.terminal.show(line)
    else:
        now.terminal.data(found)


@app.command()
def rollback(
    context: typer.Context,
    graph: Graph,
    version: Annotated[int, typer.Argument(help="The version to publish again.")],
    if_match: IfMatch = None,
) -> None:
    """Publish an earlier version of a graph again."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.graphs.rollback(graph, version, if_match=if_match))


@app.command()
def draft(
    context: typer.Context,
    graph: Graph,
    file: Annotated[Path, typer.Argument(help="A document.", exists=True, dir_okay=False)],
    if_match: IfMatch = None,
) -> None:
    """Keep a document as a graph's draft, to be published later by `graph publish`."""
    now = session(context)
    with now.client() as client:
        kept = client.graphs.put_draft(graph, file.read_bytes(), if_match=if_match)
    now.terminal.data(kept)


@app.command()
def publish(context: typer.Context, graph: Graph, if_match: IfMatch = None) -> None:
    """Publish a graph's draft."""
    now = session(context)
    with now.client() as client:
        found, created = client.graphs.publish_draft(graph, if_match=if_match)
    now.terminal.note("new version" if created else "unchanged")
    now.terminal.data(found)


@app.command()
def delete(context: typer.Context, graph: Graph, if_match: IfMatch = None) -> None:
    """Delete a graph that has no unfinished runs, with its triggers. Its runs can still be read."""
    now = session(context)
    with now.client() as client:
        client.graphs.delete(graph, if_match=if_match)
    now.terminal.data({"graph": graph, "deleted": True})


@app.command()
def pause(context: typer.Context, graph: Graph) -> None:
    """Keep the graph's runs queued, new ones too. Those that have started go on."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.graphs.pause(graph))


@app.command()
def resume(context: typer.Context, graph: Graph) -> None:
    """Let the runs of a paused graph start again."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.graphs.resume(graph))


def labels(given: list[str] | None) -> dict[str, str] | None:
    """``KEY=VALUE`` each."""
    if given is None:
        return None
    parts = [each.partition("=") for each in given]
    for key, separator, _ in parts:
        if not (key and separator):
            raise typer.BadParameter(f"{key!r} is not KEY=VALUE", param_hint="--label")
    return {key: value for key, _, value in parts}


def _refuse(terminal: Terminal, path: Path, error: GraphwrightError) -> None:
    if isinstance(error, Invalid):
        terminal.faults(error.faults, str(path))
    else:
        terminal.err.print(f"{path}:: {error.code} {error.message}", markup=False)
