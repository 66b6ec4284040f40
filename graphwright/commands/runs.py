"""``run``: start, watch and list runs. Control is in ``run_control``."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from foundation.errors import Fault, Invalid
from graphwright.commands import run_control
from graphwright.commands.graphs import labels
from graphwright.commands.params import named, no_json, params_option
from graphwright.commands.session import session
from graphwright.commands.starting import IdempotencyKey, Watch, tell

app = typer.Typer(help="Start, watch, control and list runs.", no_args_is_help=True)
app.add_typer(run_control.app)

_LEVELS = ("debug", "info", "warning", "error", "critical")

RunId = run_control.RunId


@app.command()
def start(
    context: typer.Context,
    graph: Annotated[str, typer.Argument(help="The graph's name or id.")],
    params: Annotated[
        Any, typer.Option(parser=params_option, metavar="JSON", help="The run's input, an object.")
    ] = "{}",
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help="One of them by itself; may be repeated."),
    ] = None,
    priority: Annotated[int, typer.Option(help="The highest of a tenant starts first.")] = 0,
    not_before: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339 with an offset: not before then.")
    ] = None,
    live: Annotated[
        bool, typer.Option(help="With --no-live its events are stored and not pushed.")
    ] = True,
    idempotency_key: IdempotencyKey = None,
    watch: Watch = False,
) -> None:
    """Start a run. With --watch, follow it live; exits with 1 if it fails."""
    now = session(context)
    with now.client() as client:
        started = client.runs.start(
            graph,
            {**params, **named(param or [])},
            priority=priority,
            not_before=not_before,
            live=live,
            idempotency_key=idempotency_key,
        )
        tell(now, client, started, watch=watch)


@app.command()
def batch(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON objects, one a line: graph, params and so on; - is standard input.",
            exists=True,
            dir_okay=False,
            allow_dash=True,
        ),
    ],
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again is the same runs.")
    ] = None,
) -> None:
    """Start up to 1,000 runs at once, all or none; print each on a line, in their order."""
    import json
    import sys

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        asked = [json.loads(line, parse_constant=no_json) for line in text.splitlines() if line]
    except ValueError as error:
        raise Invalid("No run was started.", [Fault("", "not_json", str(error))]) from error
    now = session(context)
    with now.client() as client:
        for started in client.runs.batch(asked, idempotency_key=idempotency_key):
            now.terminal.data(started)


@app.command()
def watch(
    context: typer.Context,
    run: RunId,
    after: Annotated[str | None, typer.Option(help="Only what came after this event id.")] = None,
) -> None:
    """Follow a run live to its end. Exits with 1 unless it succeeded."""
    from graphwright.watching import watch as follow

    now = session(context)
    with now.client() as client:
        raise typer.Exit(follow(now.terminal, client, run, after))


@app.command()
def logs(
    context: typer.Context,
    run: RunId,
    node: Annotated[str | None, typer.Option(help="Only of this node.")] = None,
    level: Annotated[str, typer.Option(help="At least debug, info, warning or error.")] = "debug",
) -> None:
    """Print what the nodes of a run have logged, and go on until it has ended."""
    if level not in _LEVELS:
        raise typer.BadParameter(f"one of {', '.join(_LEVELS)}", param_hint="--level")
    wanted = _LEVELS[_LEVELS.index(level) :]
    now = session(context)
    with now.client() as client:
        for event in client.runs.events(run):
            if event["type"] != "node.log" or node not in {None, event["node"]}:
                continue
            if event["data"]["level"] not in wanted:
                continue
            if now.terminal.for_people:
                from graphwright.live import log_line

                now.terminal.show(log_line(event))
            else:
                now.terminal.data(event)


@app.command()
def show(context: typer.Context, run: RunId) -> None:
    """Print a run as JSON: its status, its nodes', its outputs."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.runs.get(run))


@app.command()
def output(
    context: typer.Context,
    run: RunId,
    node: Annotated[str, typer.Argument(help="The node's id.")],
) -> None:
    """Print what a node of a run has made, as JSON."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.runs.output(run, node))


@app.command()
def watchers(context: typer.Context, run: RunId) -> None:
    """List who follows a run just now."""
    now = session(context)
    with now.client() as client:
        found = client.runs.watchers(run)
    if not found["complete"]:
        now.terminal.note("[yellow]Redis is away: only those of one API process[/]")
    now.terminal.rows(found["items"], ("subject", "transport", "since"))


@app.command("list")
def list_runs(
    context: typer.Context,
    graph: Annotated[str | None, typer.Option(help="Only of this graph, by name or id.")] = None,
    status: Annotated[
        list[str] | None, typer.Option(help="Only with this status; may be repeated.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only of graphs with it; may be repeated."),
    ] = None,
    error: Annotated[
        str | None, typer.Option(help="Only failed by an error of this code, say worker_lost.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 100,
) -> None:
    """List runs, newest first: a table for people, one JSON object a line for programs."""
    from itertools import islice

    now = session(context)
    with now.client() as client:
        statuses = cast("Any", status)  # the API says which there are
        listed = client.runs.list(graph=graph, status=statuses, label=labels(label), error=error)
        found = islice(listed, limit)
        if not now.terminal.for_people:
            now.terminal.rows(found, ())
            return
        told = ({**run, "error": _told(run["error"])} for run in found)
        columns = ("run_id", "graph", "version", "status", "created_at", "error")
        now.terminal.rows(told, columns)


def _told(error: dict[str, Any] | None) -> str:
    return "" if error is None else f"{error['code']}: {error['message']}"
