"""The processes of an installation, and what one needs before the first of them starts.

Python's collector is paused while one imports: nothing of that becomes garbage, and looking for it
takes a third of the time.
"""

import typer

from foundation.garbage import collector_paused
from graphwright.commands.session import session

app = typer.Typer()


@app.command()
def api(context: typer.Context) -> None:
    """Serve the HTTP API in this process, until SIGTERM."""
    from foundation.settings import Limits

    with collector_paused():
        from live_api.server import run

    run(session(context).settings(), Limits())


@app.command()
def hooks(context: typer.Context) -> None:
    """Receive webhooks in this process, until SIGTERM."""
    from foundation.settings import Limits

    with collector_paused():
        from live_api.hooks import run

    run(session(context).settings(), Limits())


@app.command()
def code(context: typer.Context) -> None:
    """Run Dagster's gRPC code server for the window of recently used graphs, until SIGTERM."""
    from foundation.telemetry.logs import configure_logs
    from graphwright.home import enter_dagster_home

    with collector_paused():
        from graphwright.code_server import serve

    settings = session(context).settings()
    configure_logs(settings.log_format)
    enter_dagster_home(settings)
    raise typer.Exit(serve(settings))


@app.command()
def webserver(context: typer.Context) -> None:
    """Serve the Dagster UI, until SIGTERM. It asks nobody who they are."""
    from graphwright.dagster_processes import serve_ui

    serve_ui(session(context).settings())


@app.command()
def daemon(context: typer.Context) -> None:
    """Run Dagster's daemon, until SIGTERM. An installation has one."""
    from graphwright.dagster_processes import run_daemon

    run_daemon(session(context).settings())


@app.command()
def dispatcher(context: typer.Context) -> None:
    """Start runs for webhooks and timers in this process, until SIGTERM."""
    import asyncio

    from foundation.telemetry.logs import configure_logs

    with collector_paused():
        from graphwright.dispatcher import run

    settings = session(context).settings()
    configure_logs(settings.log_format)
    asyncio.run(run(settings))


@app.command()
def migrate(context: typer.Context) -> None:
    """Bring the database up to date: our schema, then Dagster's. Safe to repeat."""
    from foundation.database import migrate as apply
    from graphwright.access import database_of, reaching_database
    from graphwright.home import enter_dagster_home
    from graphwright.migrating import migrate_dagster

    now = session(context)
    settings = now.settings()
    with reaching_database():
        applied = apply(database_of(settings))
    now.terminal.note(f"applied {', '.join(applied)}" if applied else "our schema is up to date")
    enter_dagster_home(settings)
    with reaching_database():
        migrate_dagster(settings, now.terminal.note)


@app.command()
def schema(context: typer.Context) -> None:
    """Print the JSON Schema of the graph document."""
    import node_types
    from graph_defs.catalogue import Catalogue
    from graph_defs.document import json_schema

    session(context).terminal.data(json_schema(Catalogue.from_packages(node_types)))
