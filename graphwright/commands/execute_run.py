"""``execute-run``: the process that was started for one run, in a container or a pod of its own."""

from typing import Annotated, Any

import typer

from foundation.errors import Fault, Invalid
from graphwright.commands.session import session

app = typer.Typer()


@app.command("execute-run", context_settings={"ignore_unknown_options": True})
def execute_run(
    context: typer.Context,
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN_ID", help="Or the command that Dagster's launchers make."),
    ],
) -> None:
    """Execute one run that was placed elsewhere, in this process, and end with it.

    On SIGTERM it has GRAPHWRIGHT_DRAIN_SECONDS to finish, and is then handed back: it goes on in
    another process. Exit code 0 says that it has ended, however that was, or was handed back.
    """
    from dynamic_jobs.workers.solo import serve_one
    from foundation.settings import Limits
    from graphwright.home import enter_dagster_home

    settings = session(context).settings()
    run_id = _run_id(run)
    enter_dagster_home(settings)
    serve_one(settings, Limits(), run_id)


def _run_id(command: list[str]) -> Any:
    """The run's id, where ``command`` is `[python -m] dagster api execute_run {…}` or itself."""
    from uuid import UUID

    from dagster._cli.api import ExecuteRunArgs
    from dagster._grpc.types import ResumeRunArgs
    from dagster._serdes import deserialize_value

    from foundation.ids import RunId

    given = command[-1]
    try:
        if len(command) == 1:
            return RunId(str(UUID(given)))
        return RunId(deserialize_value(given, (ExecuteRunArgs, ResumeRunArgs)).run_id)
    except Exception as error:
        fault = Fault("", "bad_command", f"{given[:80]!r} names no run", "Give a run's id.")
        raise Invalid("There is no run to execute.", [fault]) from error
