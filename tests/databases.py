"""Databases of one test process: a test gets the one of the test before it, emptied.

A copy of the template is some 1,500 files; what a test wrote to is a few tables. A database in
which a test defined, altered or analyzed anything is dropped, and the next one is a copy again.
"""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, LiteralString, TypeAlias

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from tests.services import copy_database, drop_database, new_name, with_database

_LEAVE_SECONDS: Final = 30.0
"""For connections that a test left open. They leave at once but where the machine is stuck."""

# What is left of a test's connections may still be writing, so they come first.
_LEAVE: Final[LiteralString] = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s
"""
_NOW: Final[LiteralString] = "SELECT pg_current_xact_id()::xid::text"
_CATALOGUES: Final = (
    "pg_attrdef", "pg_attribute", "pg_constraint", "pg_default_acl", "pg_event_trigger",
    "pg_extension", "pg_index", "pg_namespace", "pg_policy", "pg_proc", "pg_rewrite",
    "pg_statistic", "pg_statistic_ext", "pg_trigger", "pg_type",
)  # fmt: skip
# Rows that were written since. TRUNCATE writes to pg_class alone, see the next statement.
_WRITTEN: Final = SQL("SELECT {}").format(
    SQL(" + ").join(
        SQL("(SELECT count(*) FROM {} WHERE age(xmin) < age({}))").format(
            Identifier(catalogue), SQL("%(since)s::xid")
        )
        for catalogue in _CATALOGUES
    )
)
# Rows that are gone, and what there is to alter without any of the catalogues above.
_DEFINED: Final[LiteralString] = """
SELECT (SELECT count(*) FROM pg_attribute), (SELECT count(*) FROM pg_constraint),
    (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_policy),
    (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_inherits),
    (SELECT sum(hashtext((relname, relnamespace, relkind, relowner, relrowsecurity,
        relforcerowsecurity, reloptions, relacl)::text)) FROM pg_class WHERE oid >= 16384),
    (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
        WHERE d.datname = current_database())
"""
_FILLED: Final[LiteralString] = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.oid >= 16384 AND pg_relation_size(c.oid) > 0
"""
_SEQUENCES: Final[LiteralString] = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S'
"""


_Name: TypeAlias = tuple[str, str]
"""Schema and table or sequence."""


@dataclass(frozen=True, slots=True)
class _Fresh:
    """What a copy is like that no test has had."""

    since: str
    """A transaction after which nothing was defined in it."""
    defined: tuple[object, ...]
    rows: Mapping[_Name, bytes]
    """Of the tables that are not empty, as COPY has them."""
    sequences: Composed
    """Sets them all back."""


class Databases:
    """Copies of a template, lent to one test at a time each."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url = server_url
        # Kept: what PostgreSQL reads of its catalogues at first takes longer than what is asked.
        self._server = psycopg.connect(server_url, autocommit=True)
        self._template = template
        self._kept: list[tuple[str, _Fresh]] = []

    @contextmanager
    def lend(self) -> Generator[str]:
        """The URL of a database with the template's tables and rows, and of a name of its own."""
        name, fresh = self._kept.pop() if self._kept else self._copied()
        try:
            yield with_database(self._server_url, name)
        finally:
            # Under another name, what a test left running does not find it again.
            if (renamed := self._renamed(name)) and self._emptied(renamed, fresh):
                self._kept.append((renamed, fresh))
            else:
                drop_database(self._server_url, renamed or name)

    def close(self) -> None:
        """Drop those that are kept for the next tests."""
        for name, _ in self._kept:
            drop_database(self._server_url, name)
        self._server.close()

    def _copied(self) -> tuple[str, _Fresh]:
        name = new_name()
        copy_database(self._server_url, self._template, name)
        with self._connect(name) as connection:
            return name, _Fresh(
                since=connection.execute(_NOW).fetchall()[0][0],
                defined=connection.execute(_DEFINED).fetchall()[0],
                rows={table: _rows(connection, table) for table in _named(connection, _FILLED)},
                sequences=_sequences(connection),
            )

    def _renamed(self, name: str) -> str | None:
        """Its new name; None where somebody is connected to it and does not leave."""
        renamed = new_name()
        rename = SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(name), Identifier(renamed))
        deadline = time.monotonic() + _LEAVE_SECONDS
        while self._server.execute(_LEAVE, (name,)).fetchall():
            if time.monotonic() > deadline:
                return None
            time.sleep(0.002)  # PostgreSQL's own wait for their end takes steps of 0.1 s
        try:
            self._server.execute(rename)
        except psycopg.Error:  # somebody came, or the test dropped it
            return None
        return renamed

    def _emptied(self, name: str, fresh: _Fresh) -> bool:
        """Make it as it was; False where that takes more than new rows."""
        with self._connect(name) as connection, connection.transaction():
            written = connection.execute(_WRITTEN, {"since": fresh.since}).fetchall()[0][0]
            if written or connection.execute(_DEFINED).fetchall()[0] != fresh.defined:
                return False
            other = [
                table
                for table in {*_named(connection, _FILLED), *fresh.rows}
                if _rows(connection, table) != fresh.rows.get(table)
            ]
            if other:
                # Without triggers, which keep the audit log from being emptied.
                connection.execute("SET LOCAL session_replication_role = replica")
                tables = SQL(", ").join(Identifier(*table) for table in other)
                connection.execute(SQL("TRUNCATE {} CASCADE").format(tables))
            for table in other:
                if rows := fresh.rows.get(table):
                    refill = SQL("COPY {} FROM STDIN").format(Identifier(*table))
                    with connection.cursor().copy(refill) as copy:
                        copy.write(rows)
            connection.execute(fresh.sequences)
        return True

    def _connect(self, name: str) -> psycopg.Connection:
        return psycopg.connect(with_database(self._server_url, name), autocommit=True)


def _named(connection: psycopg.Connection, statement: LiteralString) -> list[_Name]:
    return [(schema, name) for schema, name in connection.execute(statement)]


def _rows(connection: psycopg.Connection, table: _Name) -> bytes:
    copied = SQL("COPY {} TO STDOUT").format(Identifier(*table))
    with connection.cursor().copy(copied) as copy:
        return b"".join(copy)


def _sequences(connection: psycopg.Connection) -> Composed:
    calls: list[Composed] = []
    for name in _named(connection, _SEQUENCES):
        sequence = Identifier(*name)
        state = connection.execute(SQL("SELECT last_value, is_called FROM {}").format(sequence))
        calls += [
            SQL("setval({}, {}, {})").format(sequence.as_string(connection), last, called)
            for last, called in state
        ]
    return SQL("SELECT {}").format(SQL(", ").join(calls))
