"""``up``, ``down``, ``status``: the local stack."""

from typing import Annotated

import typer

from foundation.errors import GraphwrightError, Unavailable
from graphwright.commands.session import session
from graphwright.terminal import FAILED

app = typer.Typer()

_STOP_MARGIN_SECONDS = 60.0


@app.command()
def up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once the examples have succeeded.")
    ] = False,
    report_to: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the whole stack here: PostgreSQL, Valkey, API, worker, Dagster.

    It publishes the examples, runs each, and stays in the foreground until Ctrl-C. Exits with 1
    when a stack runs in this state folder already, when it does not start, or when an example
    failed; in that last case the stack runs on.
    """
    from graphwright import up as stack

    now = session(context)
    settings = now.settings()
    if detach:
        raise typer.Exit(stack.detach(settings, now.terminal))
    try:
        raise typer.Exit(stack.up(settings, now.terminal, report_to))
    except GraphwrightError as error:
        # Not 3: here it is not that a stack is out of reach, but that starting one failed.
        now.terminal.error(error)
        raise typer.Exit(FAILED) from error


@app.command()
def down(context: typer.Context) -> None:
    """Stop the stack of this state folder and wait until it has gone. Does nothing if none runs."""
    from graphwright import up as stack

    now = session(context)
    settings = now.settings()
    patience = settings.drain_seconds + _STOP_MARGIN_SECONDS
    raise typer.Exit(stack.down(settings.state, now.terminal, patience))


@app.command()
def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Say where the stack of this state folder is and which processes it has. 3 if none runs."""
    from graphwright.stackfile import read_stack, with_children

    now = session(context)
    state = now.settings().state
    stack = read_stack(state)
    if not stack:
        raise Unavailable(f"no stack runs in {state}", hint="`graphwright up` starts one.")
    pids: dict[str, list[int]] = {
        # The supervisor's children are the other roles.
        role: with_children(pid) if role != "supervisor" else [pid]
        for role, pid in stack["pids"].items()
    }
    where = {
        "state": str(state),
        "api": stack["api_url"],
        "hooks": f"http://127.0.0.1:{stack['hooks_port']}",
        "dagster": stack["dagster_url"],
    }
    if as_json:
        metrics = stack["metrics"]
        now.terminal.data({**where, "metrics": metrics, "token": stack["token"], "pids": pids})
        return
    for name, value in where.items():
        typer.echo(f"{name:<10} {value}")
    for role, url in stack["metrics"].items():
        typer.echo(f"{'metrics':<10} {url}/metrics  ({role})")
    for role, processes in pids.items():
        typer.echo(f"{role:<10} {' '.join(map(str, processes)) or 'starting'}")
