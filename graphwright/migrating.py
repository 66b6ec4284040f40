"""Dagster's own tables, brought to the schema of the Dagster that is installed."""

from collections.abc import Callable
from typing import Final, LiteralString

from psycopg.sql import SQL, Identifier

from foundation.database import Connection, grant_dagster, migrating
from foundation.schema import Applied, dagster_schema
from foundation.settings import Settings

# PostgreSQL leaves an index that it was stopped from building, and does not use it; Dagster's
# migrations see that there is one, and go on. (`…_ccnew` is what a REINDEX builds, or has left.)
UNFINISHED: Final[LiteralString] = r"""
SELECT c.relname AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relnamespace = 'public'::regnamespace
    AND c.relname NOT LIKE '%\_ccnew%'
"""
BUILD: Final = SQL("REINDEX INDEX CONCURRENTLY {}")


def migrate_dagster(settings: Settings, note: Callable[[str], None]) -> None:
    """Create Dagster's tables, or migrate them, and let tenants' sessions read what they may.

    What ``dagster instance migrate`` does, but by one process at a time. Safe to repeat: what an
    attempt before left undone is done. Tables of a later Dagster stay as they are. Each step is
    told by ``note``. Our own schema has to be there, and ``enter_dagster_home`` called before.
    """
    from dagster import DagsterInstance

    newest = dagster_schema()
    with migrating(settings.database_url) as connection:
        before = Applied.of(connection).dagsters
        if newest.is_later(before):
            note(f"Dagster's tables are of a later Dagster, at {before}, and stay so")
        else:
            behind = before in newest.older
            if behind:
                note(f"Dagster's tables are at {before}, and go to {newest.head}")
            with DagsterInstance.get() as instance:  # makes tables that are missing
                instance.upgrade(note if behind else None)
            _finish_indexes(connection, note)
            note("Dagster's tables are up to date")
    grant_dagster(settings.database_url)


def _finish_indexes(connection: Connection, note: Callable[[str], None]) -> None:
    for row in connection.execute(UNFINISHED).fetchall():
        note(f"building the index {row['name']}, which was left unfinished")
        connection.execute(BUILD.format(Identifier("public", row["name"])))
