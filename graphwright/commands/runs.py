"""``run``: start, watch, cancel and list runs."""

import json
import sys
from typing import Annotated, Any, cast

import typer

from graphwright.client import Client
from graphwright.commands.session import Session, session
from graphwright.terminal import DONE, FAILED

app = typer.Typer(help="Start, watch, cancel and list runs.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _params(text: str) -> dict[str, Any]:
    try:
        value: object = json.loads(text, parse_constant=_no_json)
    except ValueError as error:
        raise typer.BadParameter(f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object")
    return cast("dict[str, Any]", value)


@app.command()
def start(
    context: typer.Context,
    graph: Annotated[str, typer.Argument(help="The graph's name or id.")],
    params: Annotated[
        Any, typer.Option(parser=_params, metavar="JSON", help="The run's input, an object.")
    ] = "{}",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False,
) -> None:
    """Start a run. With --watch, its events and then the run; exits with 1 if it fails."""
    now = session(context)
    with now.client() as client:
        started = client.start(graph, params)
        if not watch:
            now.terminal.data(started)
            return
        raise typer.Exit(_watch(now, client, started["run_id"], after=None))


@app.command()
def watch(
    context: typer.Context,
    run: RunId,
    after: Annotated[str | None, typer.Option(help="Only what came after this event id.")] = None,
) -> None:
    """Follow a run live to its end: events, then the run. Exits with 1 unless it succeeded."""
    now = session(context)
    with now.client() as client:
        raise typer.Exit(_watch(now, client, run, after))


@app.command()
def show(context: typer.Context, run: RunId) -> None:
    """Print a run as JSON: its status, its nodes', its outputs."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.run(run))


@app.command("list")
def list_runs(
    context: typer.Context,
    graph: Annotated[str | None, typer.Option(help="Only of this graph, by name or id.")] = None,
    status: Annotated[str | None, typer.Option(help="Only with this status.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 100,
) -> None:
    """List runs, newest first: a table for people, one JSON object a line for programs."""
    from itertools import islice

    now = session(context)
    with now.client() as client:
        found = islice(client.runs(graph=graph, status=status), limit)
        now.terminal.rows(found, ("run_id", "graph", "version", "status", "created_at"))


@app.command()
def cancel(context: typer.Context, run: RunId) -> None:
    """Ask for a run to be cancelled."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.cancel(run))


def _watch(now: Session, client: Client, run_id: str, after: str | None) -> int:
    """Events on stdout: lines for a person, JSON for a program; then the run as it ended."""
    if sys.stdout.isatty():
        from graphwright.live import EventPrinter

        printer = EventPrinter(len(client.run(run_id)["nodes"]), now.terminal.note)
    else:
        printer = now.terminal.data
    for event in client.watch(run_id, after):
        printer(event)
    run = client.run(run_id)
    now.terminal.data(run)
    return DONE if run["status"] == "succeeded" else FAILED
