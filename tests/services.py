"""Real PostgreSQL for the tests: one server a session, a database of its own per test."""

import atexit
import fcntl
import secrets
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.sql import SQL, Identifier

from foundation.database import grant_dagster, migrate, pinned
from graphwright.embedded import EmbeddedPostgres
from graphwright.ports import PortClaims

_OWNER = "owner.lock"
_PORTS = PortClaims()
atexit.register(_PORTS.close)


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Let one test process at a time through."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def own(folder: Path) -> BinaryIO:
    """Mark ``folder`` as this process's, until the file that is returned is closed, or we die."""
    unnamed = folder / f"{_OWNER}.new"  # until it is locked, or it would look like a dead one's
    file = unnamed.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    unnamed.rename(folder / _OWNER)
    return file


def is_abandoned(folder: Path) -> bool:
    """Whether the process that owned ``folder`` has died."""
    try:
        with (folder / _OWNER).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # owned; or not marked yet; or just being removed
        return False
    return True


class SharedPostgres(EmbeddedPostgres):
    """The server of a test session. Nothing in it has to outlive the machine, and each test makes a
    database of some 500 files, so it does not wait for the disk; what crashes is tested on servers
    of its own.
    """

    def _command(self) -> Sequence[str]:
        return [*super()._command(), "-c", "fsync=off"]


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def ensure_template(server_url: str, name: str) -> None:
    """Make the database ``name`` with all tables, ours and Dagster's, unless it is there."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if known.fetchone():
            return
        building = Identifier(f"{name}_building")
        connection.execute(SQL("DROP DATABASE IF EXISTS {}").format(building))
        connection.execute(SQL("CREATE DATABASE {}").format(building))
        create_tables(with_database(server_url, f"{name}_building"))
        connection.execute(SQL("ALTER DATABASE {} RENAME TO {}").format(building, Identifier(name)))


def create_tables(url: str) -> None:
    """Create our tables and Dagster's in an empty database."""
    # Seconds of import, which tests without a database are spared.
    from dagster_postgres.event_log import PostgresEventLogStorage
    from dagster_postgres.run_storage import PostgresRunStorage
    from dagster_postgres.schedule_storage import PostgresScheduleStorage

    migrate(url)
    for kind in (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage):
        kind(pinned(url), should_autocreate_tables=True).dispose()
    grant_dagster(url)


def new_name() -> str:
    """For a database that no test has had."""
    return f"test_{secrets.token_hex(8)}"


def copy_database(server_url: str, template: str, name: str) -> None:
    """Make the database ``name``, a copy of ``template``."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            # Through the log, which is the default, it takes a multiple of the time.
            SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                Identifier(name), Identifier(template)
            )
        )


@contextmanager
def cloned_database(server_url: str, template: str) -> Generator[str]:
    """The URL of a fresh copy of ``template``, dropped at the end whoever is still connected."""
    name = new_name()
    copy_database(server_url, template, name)
    try:
        yield with_database(server_url, name)
    finally:
        drop_database(server_url, name)


def drop_database(server_url: str, name: str) -> None:
    """Drop a database, whoever is connected to it."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


def free_port() -> int:
    """A TCP port on loopback that nobody listens on; no other is given it while this process lives.

    Who is told to use it may listen there.
    """
    return _PORTS.claim("127.0.0.1", 0)
