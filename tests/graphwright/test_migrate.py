"""``graphwright migrate``: Dagster's tables come to the schema of the Dagster that is installed."""

import os
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Final, LiteralString

import pytest

from foundation.database import Connection, connect, pinned
from foundation.schema import Applied, dagster_schema
from foundation.settings import Settings
from foundation.telemetry import health
from graphwright.doctor import backends
from graphwright.migrating import UNFINISHED
from tests.forking import Forked, run

OLDER: Final = "16689497301f"
"""Of February 2023. Four of the migrations since then build indexes concurrently."""

TABLES: Final = """
SELECT table_name || '.' || column_name || ' ' || data_type AS says
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
"""
DIFFERENT: Final = {
    "CREATE INDEX idx_run_tags ON public.run_tags USING btree (key, value)",
    "CREATE UNIQUE INDEX idx_run_tags_run_id ON public.run_tags USING btree (key, value, run_id)",
}
"""Dagster makes the first in an empty database, and the second by migrating."""
BUILDS_AN_INDEX: Final = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND query LIKE '%INDEX CONCURRENTLY%'
   AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'
"""
END_BUILDING: Final[LiteralString] = (
    f"SELECT pg_terminate_backend(pid) FROM ({BUILDS_AN_INDEX}) AS building"
)
WANTS_THE_LOCK: Final = """
SELECT FROM pg_stat_activity
 WHERE datname = current_database() AND query LIKE '%advisory_lock(%'
   AND pid <> pg_backend_pid()
"""
BACKFILL_OF: Final = "SELECT backfill_id FROM runs WHERE run_id = 'of-a-backfill'"


@pytest.fixture
def older(settings: Settings) -> Settings:
    """An installation whose database an older Dagster made, and launched a backfill in."""
    # Seconds of import, which only these tests need.
    from dagster._core.storage.sql import create_engine, run_alembic_downgrade
    from dagster_postgres import run_storage
    from dagster_postgres.utils import pg_alembic_config

    with connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO runs (run_id, status, run_body) VALUES ('of-a-backfill', 'SUCCESS', '{}')"
        )
        connection.execute(
            "INSERT INTO run_tags (run_id, key, value)"
            " VALUES ('of-a-backfill', 'dagster/backfill', 'all-days')"
        )
        connection.execute("DELETE FROM secondary_indexes WHERE name LIKE '%backfill%'")
    url = pinned(settings.database_url).replace("postgresql://", "postgresql+psycopg2://", 1)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        run_alembic_downgrade(pg_alembic_config(run_storage.__file__), connection, OLDER)
    engine.dispose()
    return settings


def environment(settings: Settings) -> dict[str, str]:
    own = {"STATE": str(settings.state), "DATABASE_URL": settings.database_url}
    return {**os.environ, **{f"GRAPHWRIGHT_{name}": value for name, value in own.items()}}


def tables(connection: Connection) -> set[str]:
    return {row["says"] for row in connection.execute(TABLES)}


def test_tables_of_an_older_dagster_are_migrated(
    settings: Settings, request: pytest.FixtureRequest
) -> None:
    with connect(settings.database_url) as connection:
        fresh = tables(connection)
        request.getfixturevalue("older")
        assert len(fresh - tables(connection)) > 20
        said = run(["migrate"], environment(settings))
        assert said.returncode == 0, said.stderr
        assert f"at {OLDER}, and go to {dagster_schema().head}" in said.stderr
        assert tables(connection) ^ fresh == DIFFERENT
        assert Applied.of(connection).lacks is None
        # What a migration does to rows, too.
        assert connection.execute(BACKFILL_OF).fetchall() == [{"backfill_id": "all-days"}]
    again = run(["migrate"], environment(settings))
    assert again.returncode == 0
    assert again.stderr.splitlines() == [
        "our schema is up to date",
        "Dagster's tables are up to date",
    ]


def test_a_migration_that_was_cut_off_is_finished(older: Settings) -> None:
    """The tables have changed, and their rows have not."""
    with connect(older.database_url) as connection:
        assert run(["migrate"], environment(older)).returncode == 0
        connection.execute("UPDATE runs SET backfill_id = NULL")
        connection.execute("DELETE FROM secondary_indexes WHERE name = 'run_backfill_id'")
        assert run(["migrate"], environment(older)).returncode == 0
        assert connection.execute(BACKFILL_OF).fetchall() == [{"backfill_id": "all-days"}]


def test_an_index_that_was_left_unfinished_is_built(older: Settings) -> None:
    with connect(older.database_url) as looking:
        with open_transaction(older), migrating(older) as first:
            until(looking, BUILDS_AN_INDEX)
            looking.execute(END_BUILDING)
            assert first.wait(60) != 0
        assert looking.execute(UNFINISHED).fetchall() == [{"name": "idx_run_tags_run_idx"}]
        assert run(["migrate"], environment(older)).returncode == 0
        assert looking.execute(UNFINISHED).fetchall() == []


def test_processes_that_migrate_at_once(older: Settings) -> None:
    """One of them builds indexes concurrently, for which no other may have a snapshot."""
    with connect(older.database_url) as looking, ExitStack() as both:
        with open_transaction(older):
            first = both.enter_context(migrating(older))
            until(looking, BUILDS_AN_INDEX)
            second = both.enter_context(migrating(older))
            until(looking, WANTS_THE_LOCK)
        assert (first.wait(60), second.wait(60)) == (0, 0)
        assert Applied.of(looking).lacks is None


@contextmanager
def migrating(settings: Settings) -> Generator[Forked]:
    with Forked(["-m", "graphwright", "migrate"], environment(settings)) as started:
        try:
            yield started
        finally:
            started.kill()


@contextmanager
def open_transaction(settings: Settings) -> Generator[None]:
    """No index that is built concurrently is ready before its end."""
    with connect(settings.database_url) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        yield


def until(connection: Connection, query: LiteralString) -> None:
    deadline = time.monotonic() + 50  # the open transaction may last for a minute
    while not connection.execute(query).fetchall():
        assert time.monotonic() < deadline, query
        time.sleep(0.01)


def test_who_is_asked_says_that_dagsters_tables_are_older(older: Settings) -> None:
    says = f"lacks Dagster's migrations from {OLDER} to {dagster_schema().head}"
    with pytest.raises(health.Unwell, match=says):
        health.database(older).ask()
    (found,) = [each for each in backends.database(older) if each.check == "migrations"]
    assert (found.state, found.mend) == ("wrong", "Run `graphwright migrate`.")
    assert says in found.says


def test_tables_of_a_later_dagster_stay(settings: Settings) -> None:
    """While a release is rolled out, the old one works on the new one's tables."""
    with connect(settings.database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'abcdef012345'")
        said = run(["migrate"], environment(settings))
        assert (said.returncode, "stay" in said.stderr) == (0, True)
        assert Applied.of(connection).dagsters == "abcdef012345"
    health.database(settings).ask()
    (found,) = [each for each in backends.database(settings) if each.check == "migrations"]
    assert "later release: Dagster's abcdef012345" in found.says
