"""``backfill``: a timer's graph run for each due time of a past range. ``trigger`` starts them."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from graphwright.commands.session import Session, session
from graphwright.terminal import DONE, FAILED

if TYPE_CHECKING:
    from graphwright.client import Client

app = typer.Typer(
    help="List, watch and cancel backfills; `trigger backfill` starts one.", no_args_is_help=True
)

_COLUMNS = (
    "backfill_id",
    "graph",
    "trigger",
    "status",
    "made",
    "total",
    "refused",
    "from_at",
    "to_at",
)

Backfill = Annotated[str, typer.Argument(metavar="BACKFILL", help="The backfill's id.")]


@app.command("list")
def list_backfills(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 100,
) -> None:
    """List backfills, newest first."""
    now = session(context)
    with now.client() as client:
        now.terminal.rows(islice(client.backfills.list(), limit), _COLUMNS)


@app.command()
def show(context: typer.Context, backfill: Backfill) -> None:
    """Print a backfill as JSON: how far it has come, and how its runs stand."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.backfills.get(backfill))


@app.command()
def watch(context: typer.Context, backfill: Backfill) -> None:
    """Follow a backfill to its end. Exits with 1 unless it succeeded."""
    now = session(context)
    with now.client() as client:
        raise typer.Exit(follow(now, client, backfill))


@app.command()
def cancel(context: typer.Context, backfill: Backfill) -> None:
    """Start no further run of a backfill, and cancel those that have not ended."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.backfills.cancel(backfill))


def follow(now: Session, client: "Client", backfill_id: str) -> int:
    """Its progress on stdout, as lines for a person and JSON for a program, to how it ended."""
    status = ""
    for state in client.backfills.watch(backfill_id):
        status = state["status"]
        if now.terminal.for_people and state["ended_at"] is None:
            runs = ", ".join(f"{count} {name}" for name, count in state["runs"].items())
            now.terminal.note(f"{status}: {state['made']} of {state['total']} started; {runs}")
        else:
            now.terminal.data(state)
    return DONE if status == "succeeded" else FAILED
