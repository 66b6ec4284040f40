"""The processes of an installation, and what one needs before the first of them starts."""

from typing import Annotated

import typer

from foundation.errors import Unavailable
from graphwright.commands.session import session

app = typer.Typer()


@app.command()
def api(context: typer.Context) -> None:
    """Serve the HTTP API in this process, until SIGTERM."""
    from foundation.settings import Limits
    from live_api.server import run

    run(session(context).settings(), Limits())


@app.command()
def worker(context: typer.Context) -> None:
    """Keep worker processes that execute queued runs, until SIGTERM; what runs then may finish.

    After GRAPHWRIGHT_DRAIN_SECONDS, or at a second SIGTERM or Ctrl-C, it is handed back.
    """
    from dynamic_jobs.workers.worker_pool import serve
    from foundation.logs import configure_logs
    from foundation.settings import Limits
    from graphwright.home import enter_dagster_home

    configure_logs()
    settings = session(context).settings()
    enter_dagster_home(settings)
    serve(settings, Limits())


@app.command()
def code(context: typer.Context) -> None:
    """Run Dagster's gRPC code server for the window of recently used graphs, until SIGTERM."""
    from foundation.logs import configure_logs
    from graphwright.code_server import serve
    from graphwright.home import enter_dagster_home

    configure_logs()
    settings = session(context).settings()
    enter_dagster_home(settings)
    raise typer.Exit(serve(settings))


@app.command()
def migrate(context: typer.Context) -> None:
    """Bring the database up to date: our schema, then Dagster's tables. Safe to repeat."""
    from foundation.database import migrate as apply
    from graphwright.access import reaching_database
    from graphwright.home import create_dagster_tables, enter_dagster_home

    now = session(context)
    settings = now.settings()
    if not settings.database_url:
        raise Unavailable("no database is known", hint="Set GRAPHWRIGHT_DATABASE_URL.")
    with reaching_database():
        applied = apply(settings.database_url)
    now.terminal.note(f"applied {', '.join(applied)}" if applied else "our schema is up to date")
    enter_dagster_home(settings)
    create_dagster_tables()
    now.terminal.note("Dagster's tables exist")


@app.command()
def token(
    context: typer.Context,
    tenant: Annotated[str, typer.Option(help="Made where it is missing.")],
    subject: Annotated[str, typer.Option(help="Who the token stands for.")] = "cli",
    scopes: Annotated[
        str | None, typer.Option(help="Separated by spaces; all of them when left out.")
    ] = None,
    hours: Annotated[
        float, typer.Option(help="How long it is good for.", min=0.001, max=8760)
    ] = 12.0,
) -> None:
    """Print a bearer token for a tenant, and nothing else."""
    import asyncio

    from graphwright.access import tenant_token

    settings = session(context).settings()
    asked = None if scopes is None else scopes.split()
    issued = tenant_token(settings, tenant, subject=subject, scopes=asked, hours=hours)
    typer.echo(asyncio.run(issued))


@app.command()
def schema(context: typer.Context) -> None:
    """Print the JSON Schema of the graph document."""
    import node_types
    from graph_defs.catalogue import Catalogue
    from graph_defs.document import json_schema

    session(context).terminal.data(json_schema(Catalogue.from_packages(node_types)))
