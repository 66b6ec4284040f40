"""``trigger``: what starts a graph's runs by itself."""

from typing import TYPE_CHECKING, Annotated

import typer

from foundation.errors import NotFound
from graphwright.commands.backfills import follow
from graphwright.commands.session import session
from graphwright.commands.starting import IdempotencyKey, Watch
from graphwright.terminal import DONE, FAILED

if TYPE_CHECKING:
    from graphwright.client import Client

app = typer.Typer(
    help="List, switch, test, fire, preview and backfill triggers.", no_args_is_help=True
)

_COLUMNS = ("name", "type", "enabled", "next_due_at", "url", "last_fault", "trigger_id")

Trigger = Annotated[str, typer.Argument(metavar="TRIGGER", help="The trigger's id, or GRAPH/NAME.")]
Time = "RFC 3339, with an offset."


@app.command("list")
def list_triggers(
    context: typer.Context, graph: Annotated[str, typer.Argument(help="The graph's name or id.")]
) -> None:
    """List a graph's triggers, with the URLs of its webhooks."""
    now = session(context)
    with now.client() as client:
        now.terminal.rows(client.triggers.list(graph), _COLUMNS)


@app.command()
def show(context: typer.Context, trigger: Trigger) -> None:
    """Print a trigger as JSON."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.triggers.get(trigger_id_of(client, trigger)))


@app.command()
def enable(context: typer.Context, trigger: Trigger) -> None:
    """Let a trigger start runs again. A timer goes on at its next due time."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.triggers.enable(trigger_id_of(client, trigger)))


@app.command()
def disable(context: typer.Context, trigger: Trigger) -> None:
    """Let a trigger start no more runs until it is enabled."""
    now = session(context)
    with now.client() as client:
        now.terminal.data(client.triggers.disable(trigger_id_of(client, trigger)))


@app.command()
def fire(
    context: typer.Context,
    trigger: Trigger,
    idempotency_key: IdempotencyKey = None,
) -> None:
    """Start a run as if a timer were due now."""
    now = session(context)
    with now.client() as client:
        trigger_id = trigger_id_of(client, trigger)
        now.terminal.data(client.triggers.fire(trigger_id, idempotency_key=idempotency_key))


@app.command()
def test(
    context: typer.Context,
    trigger: Trigger,
    body: Annotated[
        str, typer.Option(metavar="JSON", help="What a webhook is sent; - is standard input.")
    ] = "{}",
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:VALUE", help="May be repeated."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file with a webhook's secret, to sign the call by its scheme; - is stdin.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that it may take.", min=0)] = 60.0,
) -> None:
    """Try a trigger out, and print what came of it: a webhook is called, a timer is fired.

    Prints the delivery of a webhook, once it has its verdict, or the run of a timer, once it has
    ended. Exits with 1 unless the webhook started a run, or the timer's run succeeded.
    """
    from graphwright.trying import call_webhook, decided

    now = session(context)
    with now.client() as client:
        found = client.triggers.get(trigger_id_of(client, trigger))
        try:
            if found["url"] is None:
                run_id = client.triggers.fire(found["trigger_id"])["run_id"]
                became = client.runs.wait(run_id, timeout=timeout)
                well = became["status"] == "succeeded"
            else:
                delivery_id = call_webhook(found, body, header or [], secret)
                became = decided(client, delivery_id, timeout)
                well = became["verdict"] == "started"
        except TimeoutError:
            now.terminal.note(f"nothing had come of it after {timeout:g} s")
            raise typer.Exit(FAILED) from None
        now.terminal.data(became)
        raise typer.Exit(DONE if well else FAILED)


@app.command()
def preview(
    context: typer.Context,
    trigger: Trigger,
    count: Annotated[int, typer.Option(help="So many, at most 1,000.", min=1, max=1_000)] = 10,
    after: Annotated[
        str | None, typer.Option(metavar="TIME", help=f"Later than this, by default now. {Time}")
    ] = None,
) -> None:
    """Print the next due times of a timer, in UTC and in its own time zone."""
    now = session(context)
    with now.client() as client:
        fires = client.triggers.fires(trigger_id_of(client, trigger), count=count, after=after)
    now.terminal.rows(fires, ("due_at_local", "due_at", "fire_at"))


@app.command()
def backfill(
    context: typer.Context,
    trigger: Trigger,
    start: Annotated[str, typer.Option("--from", metavar="TIME", help=f"From then on. {Time}")],
    end: Annotated[str, typer.Option("--to", metavar="TIME", help=f"Before then. {Time}")],
    max_running: Annotated[
        int, typer.Option(help="At most so many of its runs are unfinished at a time.")
    ] = 16,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again is the same backfill.")
    ] = None,
    watch: Watch = False,
) -> None:
    """Run a timer's graph for each of its due times in a past range.

    With --watch, exits with 1 unless all of its runs succeed.
    """
    now = session(context)
    with now.client() as client:
        made = client.triggers.backfill(
            trigger_id_of(client, trigger),
            start,
            end,
            max_running=max_running,
            idempotency_key=idempotency_key,
        )
        if not watch:
            now.terminal.data(made)
            return
        raise typer.Exit(follow(now, client, made["backfill_id"]))


def trigger_id_of(client: "Client", trigger: str) -> str:
    """The id of a trigger that is named by its id, or as ``GRAPH/NAME``. Raises NotFound."""
    graph, slash, name = trigger.partition("/")
    if not slash:
        return trigger
    for found in client.triggers.list(graph):
        if found["name"] == name:
            return found["trigger_id"]
    raise NotFound(
        f"the graph {graph} has no trigger {name}",
        hint=f"`graphwright trigger list {graph}` lists those that it has.",
    )
