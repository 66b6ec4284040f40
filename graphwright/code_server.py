"""Dagster's gRPC code server, and beside it what tells the Dagster UI that the window has changed.

The UI reads a location when it starts and when it is told to. Told at each change, it would do
nothing else; so changes are collected for a few seconds, and a reload ends before the next.
"""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import psycopg

from dynamic_jobs.naming import LOCATION
from dynamic_jobs.window import window_versions
from foundation.database import Connection, connect
from foundation.settings import Settings

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_REST_SECONDS = 5.0
"""Between two reloads, at least: one of 200 jobs takes about 2 s of the UI's time."""
_REST_SHARE = 9
"""A rest is so many times as long as the reload before it took: on a busy machine it takes long."""
_KILL_SECONDS = 0.5
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

_RELOAD = """mutation($location: String!) {
    reloadRepositoryLocation(repositoryLocationName: $location) { __typename }
}"""


def serve(settings: Settings) -> int:
    """Run the code server until SIGTERM or SIGINT; its exit code if it ends by itself."""
    command = [
        *(sys.executable, "-m", "dagster", "api", "grpc"),
        *("--module-name", "graphwright.definitions", "--location-name", LOCATION),
        *("--host", address(settings), "--port", str(settings.code_port)),
        "--empty-working-directory",
    ]
    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server = subprocess.Popen(command)  # noqa: S603 - our own interpreter
    reloader = WindowReloader(settings)
    try:
        while not stopping and server.poll() is None:
            reloader.look()
            _sleep(_LOOK_SECONDS, until=lambda: stopping or server.poll() is not None)
        return 0 if stopping else server.returncode
    finally:
        _end(server)


class WindowReloader:
    """Compares the window with what the UI was last told of."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.dagster_url or f"http://127.0.0.1:{settings.dagster_port}"
        self._connection: Connection | None = None
        self._told: frozenset[str] | None = None
        self._next = 0.0

    def look(self) -> None:
        """Tell the UI if the window has changed. Never raises: the next look tries again."""
        if time.monotonic() < self._next:
            return
        try:
            if self._connection is None:
                self._connection = connect(self._settings.database_url)
            window = window_versions(self._connection, self._settings.window_size)
            if window != self._told:
                began = time.monotonic()
                self._reload()
                ended = time.monotonic()
                self._told = window
                self._next = ended + max(_REST_SECONDS, _REST_SHARE * (ended - began))
        except psycopg.Error as error:
            _log.warning("the window cannot be read: %s", error)
            self._connection = None
        except httpx.HTTPError as error:
            _log.debug("the Dagster UI does not answer: %s", error)

    def _reload(self) -> None:
        body = {"query": _RELOAD, "variables": {"location": LOCATION}}
        httpx.post(f"{self._url}/graphql", json=body, timeout=60).raise_for_status()


def address(settings: Settings) -> str:
    """Nobody else reaches it on loopback; a name of a service is no address to listen on."""
    return settings.code_host if settings.code_host in _LOOPBACK else "0.0.0.0"  # noqa: S104


def _sleep(seconds: float, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        time.sleep(0.05)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """A gRPC server that is told to end serves on for minutes, and shares its port meanwhile."""
    server.terminate()
    try:
        server.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
