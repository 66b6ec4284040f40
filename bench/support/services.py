"""The PostgreSQL and the Valkey of a benchmark run: Graphwright's own embedded ones, for all."""

import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString
from urllib.parse import parse_qs, urlsplit, urlunsplit

from psycopg import Cursor, sql
from psycopg.rows import DictRow

from foundation.database import connect
from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey
from graphwright.guard import Guard

_SAFETY: Final = ("fsync", "full_page_writes", "synchronous_commit")
_VERSION: Final[LiteralString] = "SHOW server_version"


@dataclass(frozen=True, slots=True)
class Services:
    """Two running servers. Both listen on Unix sockets only."""

    postgres_url: str
    valkey_socket: str
    postgres: str
    """Its version and its safety settings, for people."""

    @property
    def postgres_folder(self) -> str:
        """The folder of PostgreSQL's socket, which clients take for a host name."""
        return parse_qs(urlsplit(self.postgres_url).query)["host"][0]

    def database(self, name: str) -> str:
        """Make a database, and return its URL; libpq and SQLAlchemy both read it."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        with connect(self.postgres_url) as connection:
            connection.execute(statement)
        return urlunsplit(urlsplit(self.postgres_url)._replace(path=f"/{name}"))

    def drop(self, name: str) -> None:
        statement = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        with connect(self.postgres_url) as connection:
            connection.execute(statement)

    def valkey(self, number: int) -> str:
        """The URL of one of Valkey's databases, as redis-py reads it."""
        return f"unix://{self.valkey_socket}?db={number}"


@contextmanager
def running(folder: Path) -> Generator[Services]:
    """Start both below ``folder``; stopped at the end, also when this process is killed."""
    guard = Guard()
    servers = (EmbeddedPostgres(folder), EmbeddedValkey(folder))
    try:
        for server in servers:
            server.start()
            assert server.pid is not None
            guard.watch(server.pid, signal.SIGINT)
        postgres, valkey = (server.url for server in servers)
        yield Services(postgres, urlsplit(valkey).path, _checked(postgres))
    finally:
        for server in servers:
            pid = server.pid
            server.stop()
            if pid is not None:
                guard.forget(pid)
        guard.close()


def _checked(url: str) -> str:
    """The version and the safety settings; raises RuntimeError where one of them is off."""
    with connect(url) as connection:
        found = {
            name: _value(connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))))
            for name in _SAFETY
        }
        version = _value(connection.execute(_VERSION))
    if set(found.values()) != {"on"}:
        raise RuntimeError(f"PostgreSQL is not safe: {found}")
    return f"PostgreSQL {version} with {', '.join(f'{name} {on}' for name, on in found.items())}"


def _value(cursor: Cursor[DictRow]) -> str:
    row = cursor.fetchone()
    assert row is not None
    (value,) = row.values()
    return str(value)
