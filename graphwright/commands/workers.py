"""``worker``: run workers, list them, drain them."""

from typing import TYPE_CHECKING, Annotated

import typer

from foundation.errors import NotFound
from foundation.garbage import collector_paused
from graphwright.commands.session import session

if TYPE_CHECKING:
    from foundation.settings import Settings

app = typer.Typer()


@app.callback(invoke_without_command=True)
def worker(context: typer.Context) -> None:
    """Keep worker processes that execute queued runs, until SIGTERM; what runs then may finish.

    After GRAPHWRIGHT_DRAIN_SECONDS, or at a second SIGTERM or Ctrl-C, it is handed back.
    """
    if context.invoked_subcommand is not None:
        return
    from foundation.telemetry.together import counting_together

    settings = session(context).settings()
    with counting_together(settings):
        _serve(settings)


def _serve(settings: "Settings") -> None:
    from foundation.settings import Limits
    from foundation.telemetry.logs import configure_logs
    from graphwright.home import enter_dagster_home

    with collector_paused():  # nothing of what is imported becomes garbage
        from dynamic_jobs.workers.worker_pool import serve

    configure_logs(settings.log_format)
    enter_dagster_home(settings)
    serve(settings, Limits())


@app.command("list")
def list_workers(context: typer.Context) -> None:
    """List the workers of the whole installation, with how many runs each holds."""
    from dynamic_jobs.workers.roster import workers
    from graphwright.access import database

    now = session(context)
    with database(now.settings()) as connection:
        found = [each.as_dict() for each in workers(connection)]
    columns = ("worker", "host", "pid", "pool", "since", "seen", "runs", "idle", "draining")
    now.terminal.rows(found, columns)


@app.command()
def drain(
    context: typer.Context,
    worker: Annotated[str | None, typer.Argument(help="The worker's id.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every worker there is.")] = False,
) -> None:
    """Have a worker, and all others of its pool, take no more runs, finish theirs, and end.

    After GRAPHWRIGHT_DRAIN_SECONDS they hand back what still runs: others go on with it.
    """
    from dynamic_jobs.workers.roster import drain, drain_all
    from graphwright.access import database

    if (worker is None) is not everyone:
        raise typer.BadParameter("name a worker, or say --all")
    now = session(context)
    with database(now.settings()) as connection:
        told = drain_all(connection) if worker is None else drain(connection, worker)
    if worker is not None and not told:
        raise NotFound(f"there is no worker {worker}", hint="`graphwright worker list` has them.")
    for each in told:
        now.terminal.data({"worker": each, "draining": True})
