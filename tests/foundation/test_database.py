"""Migrations and pools against a real PostgreSQL."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest
from psycopg.pq import TransactionStatus

from foundation.database import async_pool, connect, migrate, migration_names, pinned, pool
from tests import services


@pytest.fixture
def empty_url(postgres_url: str) -> Generator[str]:
    with services.cloned_database(postgres_url, "template0") as url:
        yield url


def test_migrations_apply_once_in_order(empty_url: str) -> None:
    assert migrate(empty_url) == migration_names()
    assert migrate(empty_url) == []


def test_processes_that_migrate_at_once_share_the_work(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(migrate, [empty_url] * 4))
    assert sorted(applied) == sorted([migration_names(), [], [], []])


def test_names_are_numbered_without_gaps() -> None:
    numbers = [int(name.split("_")[0]) for name in migration_names()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_big_tables_are_partitioned_by_tenant(database_url: str) -> None:
    query = """
        SELECT c.relname, pg_get_partkeydef(c.oid) AS key
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'graphwright' AND c.relkind = 'p'
    """
    with connect(database_url) as connection:
        found = {row["relname"]: row["key"] for row in connection.execute(query)}
    assert {"graphs", "graph_versions", "runs", "node_outputs"} <= set(found)
    assert set(found.values()) == {"HASH (tenant)"}


def test_keys_of_big_tables_begin_with_the_tenant(database_url: str) -> None:
    query = """
        SELECT i.indexrelid::regclass::text AS name, a.attname AS first
          FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
         WHERE n.nspname = 'graphwright' AND c.relkind = 'p'
    """
    with connect(database_url) as connection:
        rows = connection.execute(query).fetchall()
    assert rows
    # These are asked for all tenants: what a worker held, and what goes by its own age.
    others = {row["name"].split(".")[-1] for row in rows if row["first"] != "tenant"}
    assert others == {
        "runs_held",
        "idempotency_keys_expired",
        "delivery_keys_expired",
        "deliveries_refused",
    }


def test_connections_are_in_autocommit(database_url: str) -> None:
    with pool(database_url) as connections, connections.connection() as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        assert connection.info.transaction_status == TransactionStatus.IDLE


@pytest.mark.anyio
async def test_async_pool_gives_dicts(database_url: str) -> None:
    async with async_pool(database_url, size=2) as pool, pool.connection() as connection:
        row = await (await connection.execute("SELECT 1 AS one")).fetchone()
    assert row == {"one": 1}


def test_a_session_that_stands_still_in_a_transaction_is_ended_in_time(database_url: str) -> None:
    with connect(database_url) as connection:
        row = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
    assert row == {"idle_in_transaction_session_timeout": "1min"}


def test_a_host_that_is_gone_is_noticed(database_url: str) -> None:
    ours = {"keepalives_idle": "5", "keepalives_interval": "5", "keepalives_count": "3"}
    for given, wanted in (("", "15000"), ("&tcp_user_timeout=7000", "7000")):
        url = pinned(database_url + given)
        with closing(psycopg2.connect(url)) as dagsters, connect(url) as own:
            for known in (dagsters.get_dsn_parameters(), own.info.get_parameters()):
                assert {**ours, "tcp_user_timeout": wanted}.items() <= known.items()
