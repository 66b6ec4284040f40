"""``prune``: remove what is no longer kept, now rather than bit by bit."""

from typing import Annotated

import typer

from graphwright.commands.session import session

app = typer.Typer()


@app.command()
def prune(
    context: typer.Context,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only count what would go."),
    ] = False,
) -> None:
    """Remove what ended longer ago than its tenant keeps it, and print how much that was.

    These are runs with all that is theirs, calls of webhooks, and backfills.

    Workers do so by themselves, a little every minute; this does it at once, in the same small
    batches but without pauses. It asks the database and the object store, not the API.
    """
    import asyncio
    from dataclasses import asdict

    from dynamic_jobs.retention.pruning import prune as remove
    from dynamic_jobs.retention.removed import Removed
    from graphwright.access import database_of, reaching_database

    now = session(context)
    settings = now.settings()
    database_of(settings)

    def progress(so_far: Removed) -> None:
        if so_far:
            counted = f"{so_far.runs} runs, {so_far.events} events, {so_far.deliveries} deliveries"
            now.terminal.note(f"[dim]{counted}[/]")

    with reaching_database():
        removed = asyncio.run(remove(settings, dry_run=dry_run, progress=progress))
    now.terminal.data(asdict(removed))
