"""A database that had a test before is as good as a new one, or is not lent again."""

from collections.abc import Generator
from typing import Any

import psycopg
import pytest

from tests import services
from tests.databases import Databases

_TENANTS = "SELECT tenant FROM graphwright.tenants ORDER BY tenant"


@pytest.fixture
def lent(postgres_url: str, template_database: str) -> Generator[Databases]:
    databases = Databases(postgres_url, template_database)
    yield databases
    databases.close()


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True)


def number(url: str) -> int:
    """PostgreSQL's own, which a new name does not change."""
    with connect(url) as connection:
        rows = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        return rows.fetchall()[0][0]


def test_the_next_test_finds_it_as_the_first_one_did(lent: Databases) -> None:
    with lent.lend() as url, connect(url) as connection:
        first = number(url)
        tenants = connection.execute(_TENANTS).fetchall()
        migrations = connection.execute("SELECT * FROM graphwright.migrations").fetchall()
        connection.execute("INSERT INTO graphwright.tenants (tenant) VALUES ('acme')")
        connection.execute("DELETE FROM graphwright.migrations")
        connection.execute(
            "INSERT INTO graphwright.graph_labels VALUES ('acme', 'a:b', gen_random_uuid())"
        )
        kept = "INSERT INTO kvs (key, value) VALUES ('a', 'b') RETURNING id"
        ids = connection.execute(kept).fetchall()
    with lent.lend() as again, connect(again) as connection:
        assert number(again) == first
        assert again != url
        assert connection.execute(_TENANTS).fetchall() == tenants
        assert connection.execute("SELECT * FROM graphwright.migrations").fetchall() == migrations
        assert connection.execute("SELECT FROM graphwright.graph_labels").fetchall() == []
        assert connection.execute(kept).fetchall() == ids


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE graphwright.more (a int)",
        "DROP TABLE kvs",
        "ALTER TABLE kvs ALTER value SET DEFAULT 'a'",
        "ALTER TABLE run_tags DISABLE TRIGGER ALL",
        "ALTER TABLE kvs SET (autovacuum_enabled = off)",
        "ALTER TABLE kvs ENABLE ROW LEVEL SECURITY",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "GRANT SELECT ON kvs TO pg_monitor",
        "ANALYZE graphwright.tenants",
        "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 64',"
        " current_database()); END$$",
        "DO $$BEGIN EXECUTE format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)"
        " FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0 LIMIT 1; END$$",
    ],
)
def test_what_is_altered_is_not_lent_again(lent: Databases, statement: Any) -> None:
    with lent.lend() as url:
        first = number(url)
        with connect(url) as connection:
            connection.execute(statement)
    with lent.lend() as again:
        assert number(again) != first


def test_who_is_still_connected_is_put_out(lent: Databases) -> None:
    with lent.lend() as url:
        connection = connect(url)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO graphwright.tenants (tenant) VALUES ('acme')")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("COMMIT")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(url)
    with lent.lend() as again, connect(again) as other:
        assert other.execute(_TENANTS).fetchall() == [("",)]


def test_one_that_the_test_dropped_itself_is_made_anew(lent: Databases, postgres_url: str) -> None:
    with lent.lend() as url:
        services.drop_database(postgres_url, url.split("/")[-1].split("?")[0])
    with lent.lend() as again, connect(again) as connection:
        assert connection.execute(_TENANTS).fetchall() == [("",)]
