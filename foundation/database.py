"""PostgreSQL: connection pools and forward-only migrations.

Ours is psycopg 3 throughout; Dagster's own storage keeps psycopg2 behind SQLAlchemy.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, LiteralString, TypeAlias, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

AsyncConnection: TypeAlias = psycopg.AsyncConnection[DictRow]
Connection: TypeAlias = psycopg.Connection[DictRow]
AsyncPool: TypeAlias = AsyncConnectionPool[AsyncConnection]
Pool: TypeAlias = ConnectionPool[Connection]

_MIGRATION_LOCK = 0x6772_6170  # "grap": any number that no one else takes on this database
_FOLDER = files("foundation") / "migrations"
_SEARCH_PATH = "-csearch_path=public"
_OPTIONS: Mapping[str, Any] = {"autocommit": True, "row_factory": dict_row}


def async_pool(url: str, *, size: int = 8) -> AsyncPool:
    """A closed pool of at most ``size`` connections; open it with ``async with``."""
    return AsyncConnectionPool(
        pinned(url),
        min_size=1,
        max_size=size,
        open=False,
        kwargs=dict(_OPTIONS),
        timeout=10,
        connection_class=psycopg.AsyncConnection[DictRow],
    )


def pool(url: str, *, size: int = 4) -> Pool:
    """A closed pool of at most ``size`` connections for threads; open it with ``with``."""
    return ConnectionPool(
        pinned(url),
        min_size=1,
        max_size=size,
        open=False,
        kwargs=dict(_OPTIONS),
        timeout=10,
        connection_class=psycopg.Connection[DictRow],
    )


def connect(url: str) -> Connection:
    """One connection in autocommit mode, rows as dicts."""
    return psycopg.Connection[DictRow].connect(pinned(url), autocommit=True, row_factory=dict_row)


async def async_connect(url: str) -> AsyncConnection:
    """:func:`connect` for the event loop."""
    return await psycopg.AsyncConnection[DictRow].connect(
        pinned(url), autocommit=True, row_factory=dict_row
    )


def pinned(url: str) -> str:
    """The URL with ``search_path`` set to ``public``, where Dagster's tables are.

    By default PostgreSQL looks first into a schema named like the role; for a role ``graphwright``
    that is ours, and ours has a table ``runs`` too.
    """
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    options = query.get("options", [])
    if _SEARCH_PATH not in " ".join(options):
        query["options"] = [" ".join((*options, _SEARCH_PATH))]
    return urlunsplit(parts._replace(query=urlencode(query, doseq=True, quote_via=quote)))


def migrate(url: str) -> list[str]:
    """Bring the schema ``graphwright`` up to date and return the names of what was applied.

    Each file of ``migrations/`` runs once, in the order of its number, in a transaction of its own.
    Safe to call from many processes at once: an advisory lock lets one through.
    """
    applied: list[str] = []
    with connect(url) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
        connection.execute("CREATE SCHEMA IF NOT EXISTS graphwright")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS graphwright.migrations"
            " (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        rows = connection.execute("SELECT name FROM graphwright.migrations")
        done = {row["name"] for row in rows}
        for name in migration_names():
            if name in done:
                continue
            with connection.transaction():
                connection.execute(_sql(name))
                connection.execute("INSERT INTO graphwright.migrations (name) VALUES (%s)", (name,))
            applied.append(name)
    return applied


def migration_names() -> list[str]:
    """Every migration of this release, in order."""
    return sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".sql"))


def _sql(name: str) -> LiteralString:
    # Shipped with the code, so as trustworthy as a literal.
    return cast("LiteralString", (_FOLDER / name).read_text("utf-8"))
