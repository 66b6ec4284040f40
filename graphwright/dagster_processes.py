"""Dagster's own processes, as an installation runs them: its webserver and its daemon."""

import os
import runpy
import sys
from typing import Final, LiteralString, NoReturn

import psycopg

from foundation.database import pinned
from foundation.settings import Settings
from foundation.telemetry import health
from foundation.telemetry.serving import listener_of, serving
from graphwright.home import enter_dagster_home, workspace_file

_SECONDS: Final = 2
_LATE_SECONDS: Final = 120.0
"""Each of the daemon's threads gives a sign of life every 30 seconds."""

# Dagster writes UTC into a column without a time zone.
HEARTBEAT: Final[LiteralString] = """
SELECT extract(epoch FROM now() AT TIME ZONE 'UTC' - max(timestamp))::float FROM daemon_heartbeats
"""


def serve_ui(settings: Settings) -> NoReturn:
    """Become Dagster's webserver, which tells of itself at ``/server_info``."""
    enter_dagster_home(settings)
    listen = ("-h", settings.dagster_host, "-p", str(settings.dagster_port))
    command = ("-m", "dagster_webserver", *listen, "-w", str(workspace_file()))
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - our own interpreter


def run_daemon(settings: Settings) -> None:
    """Run Dagster's daemon in this process until SIGTERM. It ends by itself if a thread hangs."""
    enter_dagster_home(settings)
    sys.argv = ["dagster-daemon", "run", "-w", str(workspace_file())]
    ready = [health.database(settings), heartbeat(settings)]
    with serving(listener_of(settings), ready=ready):
        runpy.run_module("dagster._daemon", run_name="__main__")


def heartbeat(settings: Settings) -> health.Check:
    """The daemon has lately told the database that it lives."""

    def ask() -> None:
        url = pinned(settings.database_url, f"-cstatement_timeout={_SECONDS}s")
        with psycopg.connect(url, connect_timeout=_SECONDS, autocommit=True) as connection:
            row = connection.execute(HEARTBEAT).fetchone()
        since = row[0] if row else None
        if since is None or since > _LATE_SECONDS:
            raise health.Unwell("not yet" if since is None else f"not for {since:.0f} s")

    return health.Check("heartbeat", ask)
