"""PostgreSQL: connection pools and forward-only migrations.

Ours is psycopg 3 throughout; Dagster's own storage keeps psycopg2 behind SQLAlchemy.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, LiteralString, TypeAlias, cast

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

AsyncConnection: TypeAlias = psycopg.AsyncConnection[DictRow]
Connection: TypeAlias = psycopg.Connection[DictRow]
AsyncPool: TypeAlias = AsyncConnectionPool[AsyncConnection]
Pool: TypeAlias = ConnectionPool[Connection]

_MIGRATION_LOCK = 0x6772_6170  # "grap": any number that no one else takes on this database
_OPTIONS: Mapping[str, Any] = {"autocommit": True, "row_factory": dict_row}


def async_pool(url: str, *, size: int = 8) -> AsyncPool:
    """A closed pool of at most ``size`` connections; open it with ``async with``."""
    return AsyncConnectionPool(
        url,
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
        url,
        min_size=1,
        max_size=size,
        open=False,
        kwargs=dict(_OPTIONS),
        timeout=10,
        connection_class=psycopg.Connection[DictRow],
    )


def connect(url: str) -> Connection:
    """One connection in autocommit mode, rows as dicts."""
    return psycopg.Connection[DictRow].connect(url, autocommit=True, row_factory=dict_row)


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
        for name, sql in _migrations():
            if name in done:
                continue
            with connection.transaction():
                connection.execute(sql)
                connection.execute("INSERT INTO graphwright.migrations (name) VALUES (%s)", (name,))
            applied.append(name)
    return applied


def _migrations() -> list[tuple[str, LiteralString]]:
    folder = files("foundation") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    # Shipped with the code, so as trustworthy as a literal.
    return [(name, cast("LiteralString", (folder / name).read_text("utf-8"))) for name in names]
