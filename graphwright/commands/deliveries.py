"""``delivery``: the inbox of webhooks."""

from itertools import islice
from typing import Annotated

import typer

from graphwright.commands.session import session
from graphwright.commands.triggers import trigger_id_of

app = typer.Typer(help="List, show and redeliver the calls of webhooks.", no_args_is_help=True)

_COLUMNS = (
    "delivery_id", "graph", "trigger", "received_at", "verdict", "latency_ms", "run_id", "reason",
)  # fmt: skip

Delivery = Annotated[str, typer.Argument(metavar="DELIVERY", help="The delivery's id.")]


@app.command("list")
def list_deliveries(
    context: typer.Context,
    graph: Annotated[str | None, typer.Option(help="Only of this graph, by name or id.")] = None,
    trigger: Annotated[
        str | None, typer.Option(help="Only of this trigger, by id or GRAPH/NAME.")
    ] = None,
    verdict: Annotated[
        str | None, typer.Option(help="pending, started, filtered, rejected or refused.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = 100,
) -> None:
    """List deliveries, newest first: a table for people, one JSON object a line for programs."""
    now = session(context)
    with now.client() as client:
        trigger_id = trigger and trigger_id_of(client, trigger)
        found = client.deliveries.list(graph=graph, trigger_id=trigger_id, verdict=verdict)
        now.terminal.rows(islice(found, limit), _COLUMNS)


@app.command()
def show(context: typer.Context, delivery: Delivery) -> None:
    """Print a delivery as JSON, with its headers and body."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.deliveries.get(delivery))


@app.command()
def redeliver(context: typer.Context, delivery: Delivery) -> None:
    """Deliver a call again, to its trigger as that is published now; print the new delivery."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.deliveries.redeliver(delivery))
