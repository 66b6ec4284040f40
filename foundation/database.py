"""PostgreSQL: connection pools and forward-only migrations.

Ours is psycopg 3 throughout; Dagster's own storage keeps psycopg2 behind SQLAlchemy.
"""

import asyncio
import time
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Final, LiteralString, TypeAlias, TypeVar, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from foundation.ids import TenantId


class AsyncConnection(psycopg.AsyncConnection[DictRow]):
    """A session for the event loop, rows as dicts."""

    tenant: TenantId | None = None
    """Whose session it is, if it is one of a :class:`TenantPool`."""


class Connection(psycopg.Connection[DictRow]):
    """A session for threads, rows as dicts."""

    tenant: TenantId | None = None
    """As of :class:`AsyncConnection`."""


T = TypeVar("T")


class AsyncPool(AsyncConnectionPool[AsyncConnection]):
    """Loses no connection where whoever takes one, or gives one back, is cancelled meanwhile.

    psycopg_pool does: a task that is cancelled while it hands a connection to the next who waits
    drops it, and one that is cancelled twice while it waits may leave a lock that nobody opens.
    So both go on to their end in tasks of their own.
    """

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._under_way: set[asyncio.Task[Any]] = set()
        """The event loop itself does not keep tasks."""

    async def getconn(  # the library has it like this
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncConnection:
        taking = self._to_its_end(super().getconn(timeout))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._not_wanted)
            raise

    async def putconn(self, conn: AsyncConnection) -> None:
        await asyncio.shield(self._to_its_end(super().putconn(conn)))

    def _not_wanted(self, taking: asyncio.Task[AsyncConnection]) -> None:
        if not taking.cancelled() and taking.exception() is None:
            self._to_its_end(super().putconn(taking.result()))

    def _to_its_end(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


Pool: TypeAlias = ConnectionPool[Connection]

_MIGRATION_LOCK = 0x6772_6170  # "grap": any number that no one else takes on this database
_MIGRATION_WAIT_SECONDS = 0.1
TAKE_MIGRATION_LOCK: Final[LiteralString] = "SELECT pg_try_advisory_lock(%s) AS mine"
_FOLDER = files("foundation") / "migrations"
_SEARCH_PATH = "-csearch_path=public"
_IDLE = "-cidle_in_transaction_session_timeout=60s"
# What pools ask is found by its key. A plan that was made while a table was empty would read all of
# it, and is kept until the table is first analyzed: a minute in which it may have grown by 100,000.
_BY_KEY = "-cenable_seqscan=off"
# Over TCP a host that is gone is noticed after 15 or 20 seconds; by default after 15 minutes where
# something was sent, else after two hours. For libpq, so for psycopg 3 and psycopg2 alike.
_NOTICED: Mapping[str, list[str]] = {
    "keepalives_idle": ["5"],
    "keepalives_interval": ["5"],
    "keepalives_count": ["3"],
    "tcp_user_timeout": ["15000"],
}
_WAIT_SECONDS = 10
_RECONNECT_SECONDS = 5
"""A pool gives up then, and tries again when it is next asked. By default it waits for longer and
longer by itself: after an outage of 45 seconds for another 17."""
_OPTIONS: Mapping[str, Any] = {"autocommit": True, "row_factory": dict_row}


def async_pool(url: str, *options: str, size: int = 8) -> AsyncPool:
    """A closed pool of at most ``size`` connections; open it with ``async with``.

    ``options`` are the server's, such as ``-crole=…``.
    """
    return AsyncPool(
        pinned(url, _BY_KEY, *options),
        min_size=1,
        max_size=size,
        open=False,
        kwargs=dict(_OPTIONS),
        timeout=_WAIT_SECONDS,
        reconnect_timeout=_RECONNECT_SECONDS,
        connection_class=AsyncConnection,
    )


def pool(url: str, *options: str, size: int = 4) -> Pool:
    """A closed pool of at most ``size`` connections for threads; open it with ``with``.

    ``options`` as in :func:`async_pool`.
    """
    return ConnectionPool(
        pinned(url, *options),
        min_size=1,
        max_size=size,
        open=False,
        kwargs=dict(_OPTIONS),
        timeout=_WAIT_SECONDS,
        reconnect_timeout=_RECONNECT_SECONDS,
        connection_class=Connection,
    )


def connect(url: str) -> Connection:
    """One connection in autocommit mode, rows as dicts."""
    return Connection.connect(pinned(url), autocommit=True, row_factory=dict_row)


async def async_connect(url: str) -> AsyncConnection:
    """:func:`connect` for the event loop."""
    return await AsyncConnection.connect(pinned(url), autocommit=True, row_factory=dict_row)


def pinned(url: str, *more: str) -> str:
    """The URL with these options, and with ``search_path`` set to ``public``, where Dagster has its
    tables.

    By default PostgreSQL looks first into a schema named like the role; for a role ``graphwright``
    that is ours, and ours has a table ``runs`` too.

    And a session that stands still in a transaction is ended after a minute: its process may be
    stopped, or its host gone, and others wait for what it has locked. And where PostgreSQL's host
    is gone, a connection ends soon, unless the URL itself says when.
    """
    parts = urlsplit(url)
    query = {**_NOTICED, **parse_qs(parts.query)}
    given = " ".join(query.get("options", ())).split()
    own = (_SEARCH_PATH, _IDLE, *more)
    query["options"] = [" ".join((*given, *(option for option in own if option not in given)))]
    return urlunsplit(parts._replace(query=urlencode(query, doseq=True, quote_via=quote)))


@contextmanager
def migrating(url: str) -> Generator[Connection]:
    """A connection that changes the schema while no other process does; waits until it may."""
    with connect(url) as connection:
        # Who waits inside of PostgreSQL has a snapshot. Dagster's migrations build indexes
        # concurrently, which waits for the end of all snapshots: each would wait for the other.
        while not connection.execute(TAKE_MIGRATION_LOCK, (_MIGRATION_LOCK,)).fetchall()[0]["mine"]:
            time.sleep(_MIGRATION_WAIT_SECONDS)
        yield connection


def migrate(url: str) -> list[str]:
    """Bring the schema ``graphwright`` up to date and return the names of what was applied.

    Each file of ``migrations/`` runs once, in the order of its number, in a transaction of its own.
    Safe to call from many processes at once: an advisory lock lets one through.
    """
    applied: list[str] = []
    with migrating(url) as connection:
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


def grant_dagster(url: str) -> None:
    """Let tenants' sessions read what they may of Dagster's tables, which must be there."""
    with migrating(url) as connection:
        connection.execute("SELECT graphwright.grant_dagster()")


def migration_names() -> list[str]:
    """Every migration of this release, in order."""
    return sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".sql"))


def _sql(name: str) -> LiteralString:
    # Shipped with the code, so as trustworthy as a literal.
    return cast("LiteralString", (_FOLDER / name).read_text("utf-8"))
