"""``run``: cancel, pause, resume, run again."""

from typing import Annotated, Any

import typer

from graphwright.commands.params import named, params_option
from graphwright.commands.session import session
from graphwright.commands.starting import IdempotencyKey, Watch, tell

app = typer.Typer()

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]


@app.command()
def cancel(context: typer.Context, run: RunId) -> None:
    """Ask for a run to be cancelled."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.runs.cancel(run))


@app.command()
def pause(context: typer.Context, run: RunId) -> None:
    """Start no further node of a run until it is resumed; those under way may finish."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.runs.pause(run))


@app.command()
def resume(context: typer.Context, run: RunId) -> None:
    """Let a paused run go on where it was."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.runs.resume(run))


@app.command()
def rerun(
    context: typer.Context,
    run: RunId,
    begin: Annotated[
        str,
        typer.Option(
            "--from", help="start, failed (what has not succeeded), or a node and what follows."
        ),
    ] = "start",
    params: Annotated[
        Any,
        typer.Option(
            parser=params_option, metavar="JSON", help="Instead of the run's own, an object."
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help="One of the run's own to change; may be repeated."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
    watch: Watch = False,
) -> None:
    """Run a run again that has ended: a new run. With --watch as for `start`."""
    now = session(context)
    with now.client() as client:
        if param:
            own = client.runs.get(run)["params"] if params is None else params
            params = {**own, **named(param)}
        started = client.runs.rerun(run, begin, params=params, idempotency_key=idempotency_key)
        tell(now, client, started, watch=watch)
