"""The second wall between tenants: what PostgreSQL lets a tenant's session see and change.

The statements here are wrong on purpose: they name no tenant, as one of ours might forget to.
"""

import secrets
from collections.abc import AsyncGenerator, Generator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL, Identifier

from foundation.database import AsyncPool, Connection, connect, migrate, pinned
from foundation.ids import TenantId
from foundation.tenant_pool import (
    SET_TENANT,
    TENANT_ROLE,
    BlockingTenantPool,
    TenantPool,
    blocking_tenant_sessions,
    tenant_sessions,
)
from tests import services

pytestmark = pytest.mark.anyio

ACME, OTHER = TenantId("acme"), TenantId("other")
OF_NO_TENANT = {"migrations", "workers"}

# Every table of graphwright that has a tenant, with a row of each of these; columns that must have
# a value get one of their type.
FILL = """
DO $$
DECLARE
    wanted record;
    whose text;
BEGIN
    FOREACH whose IN ARRAY ARRAY['acme', 'other'] LOOP
        FOR wanted IN
            SELECT c.relname,
                string_agg(quote_ident(a.attname), ', ') AS names,
                string_agg(CASE
                    WHEN a.attname = 'tenant' THEN quote_literal(whose)
                    WHEN a.attname = 'role' THEN quote_literal('viewer')
                    WHEN a.attname = 'value' AND c.relname = 'node_outputs' THEN quote_literal('1')
                    WHEN t.typname = 'uuid' THEN 'gen_random_uuid()'
                    WHEN t.typname IN ('json', 'jsonb') THEN quote_literal('{}')
                    WHEN t.typname = 'bytea' THEN quote_literal('\\x00')
                    WHEN t.typname IN ('text', 'varchar') THEN quote_literal('of ' || whose)
                    WHEN t.typname IN ('timestamptz', 'date') THEN 'now()'
                    ELSE '1'
                END, ', ') AS items
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            JOIN pg_type t ON t.oid = a.atttypid
            WHERE c.relnamespace = 'graphwright'::regnamespace AND c.relkind IN ('r', 'p')
                AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = ''
                AND c.relname <> ALL (ARRAY['migrations', 'workers', 'retention'])
                AND (a.attnotnull AND NOT a.atthasdef OR a.attname = 'tenant'
                    OR a.attname = 'value' AND c.relname = 'node_outputs')
            GROUP BY c.relname
        LOOP
            EXECUTE format('INSERT INTO graphwright.%I (%s) VALUES (%s)',
                wanted.relname, wanted.names, wanted.items);
        END LOOP;
    END LOOP;
END $$
"""


@pytest.fixture
def system(database_url: str) -> Generator[Connection]:
    """A session that stands outside the wall, over a database in which both tenants have rows."""
    with connect(database_url) as connection:
        connection.execute(FILL.encode())
        yield connection


@pytest.fixture
def walled(system: Connection, database_url: str) -> Generator[Connection]:
    """A session of ``acme``."""
    with (
        blocking_tenant_sessions(database_url) as sessions,
        BlockingTenantPool(sessions).connection(ACME) as connection,
    ):
        yield connection


def tables(connection: Connection) -> dict[str, bool]:
    """Every table that is no partition, and whether it has a tenant."""
    query = """
        SELECT c.relname, EXISTS (
            SELECT FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
        ) AS tenanted
        FROM pg_class c
        WHERE c.relnamespace = 'graphwright'::regnamespace AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition
    """
    return {row["relname"]: row["tenanted"] for row in connection.execute(query)}


def may(connection: Connection, table: str, right: str) -> bool:
    """Whether the tenants' role has a right on the table, or on a column of it."""
    query = "SELECT has_any_column_privilege(%s, 'graphwright.' || %s, %s) AS may"
    if right == "DELETE":
        query = query.replace("has_any_column_privilege", "has_table_privilege")
    row = connection.execute(query.encode(), (TENANT_ROLE, table, right)).fetchone()
    assert row is not None
    return row["may"]


def contents(connection: Connection, table: str, tenant: str = OTHER) -> list[Any]:
    query = SQL("SELECT t::text FROM {} t WHERE tenant = %s").format(
        Identifier("graphwright", table)
    )
    return sorted(row["t"] for row in connection.execute(query, (tenant,)))


def test_every_table_with_a_tenant_is_behind_the_wall(system: Connection) -> None:
    found = tables(system)
    assert {name for name, tenanted in found.items() if not tenanted} == OF_NO_TENANT
    query = """
        SELECT c.relname FROM pg_class c JOIN pg_policy p ON p.polrelid = c.oid
        WHERE c.relrowsecurity AND p.polname = 'own' AND p.polcmd = '*' AND p.polpermissive
    """
    behind = {row["relname"] for row in system.execute(query)}
    assert behind == {name for name, tenanted in found.items() if tenanted}


def test_nothing_is_granted_on_partitions_or_of_no_tenant(system: Connection) -> None:
    query = """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('graphwright', 'public') AND c.relkind IN ('r', 'p', 'v', 'm')
            AND has_any_column_privilege(%s, c.oid, 'SELECT, INSERT, UPDATE')
            AND NOT c.relrowsecurity
    """
    open_to_all = {row["relname"] for row in system.execute(query, (TENANT_ROLE,))}
    # A view with the rights of who asks; two columns; and Dagster's, see docs/security.md.
    assert open_to_all == {"tenant_policies", "workers", "event_logs", "runs", "run_tags"}
    row = system.execute(
        "SELECT reloptions FROM pg_class WHERE oid = 'graphwright.tenant_policies'::regclass"
    ).fetchone()
    assert row == {"reloptions": ["security_invoker=true"]}


def test_a_statement_without_its_tenant_reads_nothing_of_others(
    system: Connection, walled: Connection
) -> None:
    readable = [name for name, tenanted in tables(system).items() if tenanted]
    readable = [name for name in readable if may(system, name, "SELECT")]
    assert len(readable) > 15
    for name in readable:
        rows = walled.execute(
            SQL("SELECT tenant FROM {}").format(Identifier("graphwright", name))
        ).fetchall()
        seen = {row["tenant"] for row in rows} - {""}  # what holds for all tenants
        assert seen == {ACME}, name
    policies = walled.execute("SELECT tenant FROM graphwright.tenant_policies").fetchall()
    assert {row["tenant"] for row in policies} == {"", ACME}


def test_a_statement_without_its_tenant_changes_nothing_of_others(
    system: Connection, walled: Connection
) -> None:
    names = [name for name, tenanted in tables(system).items() if tenanted]
    before = {name: contents(system, name) for name in names}
    changed: set[str] = set()
    for name in names:
        table = Identifier("graphwright", name)
        columns = system.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND NOT attisdropped AND attgenerated = '' AND has_column_privilege(%s, attrelid,"
            " attnum, 'UPDATE') AND attname <> 'tenant'",
            (f"graphwright.{name}", TENANT_ROLE),
        ).fetchall()
        for column in (Identifier(row["attname"]) for row in columns):
            walled.execute(SQL("UPDATE {} SET {} = {}").format(table, column, column))
            changed.add(name)
        if may(system, name, "DELETE"):
            assert walled.execute(SQL("DELETE FROM {}").format(table)).rowcount == 1, name
            assert contents(system, name, ACME) == []
    assert len(changed) > 8
    assert {name: contents(system, name) for name in names} == before


def test_a_session_cannot_write_rows_of_others(system: Connection, walled: Connection) -> None:
    statements = (
        "INSERT INTO graphwright.tenants (tenant) VALUES ('third')",
        "INSERT INTO graphwright.graphs (tenant, graph_id, name, version)"
        " VALUES ('other', gen_random_uuid(), 'planted', 0)",
        "UPDATE graphwright.graphs SET tenant = 'other'",
        "INSERT INTO graphwright.secrets (tenant, name, data_key_id, value, author)"
        " VALUES ('other', 'key', gen_random_uuid(), '', 'eve')",
    )
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            walled.execute(statement.encode())


FORBIDDEN = (
    "UPDATE graphwright.tenants SET max_running = 1000",
    "UPDATE graphwright.graph_versions SET document = '{}'",
    "UPDATE graphwright.runs SET outputs = '1'",
    "UPDATE graphwright.runs SET epoch = epoch + 1",
    "INSERT INTO graphwright.runs (tenant) VALUES ('acme')",
    "DELETE FROM graphwright.runs",
    "DELETE FROM graphwright.node_outputs",
    "UPDATE graphwright.node_outputs SET value = '1'",
    "UPDATE graphwright.api_keys SET role = 'admin'",
    "UPDATE graphwright.data_keys SET wrapped = ''",
    "DELETE FROM graphwright.data_keys",
    "INSERT INTO graphwright.audit (tenant) VALUES ('acme')",
    "DELETE FROM graphwright.audit",
    "TRUNCATE graphwright.audit",
    "SELECT * FROM graphwright.left_objects",
    "SELECT * FROM graphwright.runs_0",
    "SELECT host FROM graphwright.workers",
    "SELECT hash FROM graphwright.api_keys",
    "SELECT * FROM graphwright.migrations",
    "SELECT * FROM kvs",
    "SELECT * FROM job_ticks",
    "DELETE FROM event_logs",
    "ALTER TABLE graphwright.runs DISABLE ROW LEVEL SECURITY",
    "CREATE TABLE graphwright.mine (x int)",
)


def test_a_session_may_do_what_the_api_does_and_no_more(walled: Connection) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(errors.InsufficientPrivilege):
            walled.execute(statement.encode())


def test_a_session_that_serves_nobody_sees_nothing(system: Connection, database_url: str) -> None:
    with psycopg.connect(pinned(database_url, f"-crole={TENANT_ROLE}"), autocommit=True) as session:
        for tenant in (None, ""):
            if tenant is not None:
                session.execute(SET_TENANT, (tenant,))
            for name, tenanted in tables(system).items():
                if tenanted and may(system, name, "SELECT"):
                    query = SQL("SELECT tenant FROM {}").format(Identifier("graphwright", name))
                    assert session.execute(query).fetchall() == [], name


class _Cut(Exception):
    """Something breaks while a session is in use."""


@pytest.fixture
async def one_session(system: Connection, database_url: str) -> AsyncGenerator[AsyncPool]:
    async with tenant_sessions(database_url, size=1) as sessions:
        yield sessions


async def test_a_session_given_back_takes_no_tenant_along(one_session: AsyncPool) -> None:
    tenants = TenantPool(one_session)
    for tenant in (ACME, OTHER, OTHER, ACME):
        async with tenants.connection(tenant) as connection:
            assert await _seen(connection) == {tenant}
    # Whatever became of the one before: a transaction rolled back, or left open.
    with pytest.raises(_Cut):
        async with tenants.connection(OTHER) as connection, connection.transaction():
            assert await _seen(connection) == {OTHER}
            raise _Cut
    async with tenants.connection(ACME) as connection:
        assert await _seen(connection) == {ACME}
        await connection.execute("BEGIN")
    async with tenants.connection(OTHER) as connection:
        assert await _seen(connection) == {OTHER}


async def test_a_session_keeps_its_tenant_while_it_serves_no_other(one_session: AsyncPool) -> None:
    tenants = TenantPool(one_session)
    for _ in range(2):
        async with tenants.connection(ACME) as connection:
            row = await (
                await connection.execute("SELECT pg_current_xact_id_if_assigned() IS NULL AS idle")
            ).fetchone()
            assert row == {"idle": True}
            assert connection.tenant == ACME


async def test_a_session_whose_tenant_could_not_be_set_serves_nobody(
    one_session: AsyncPool, database_url: str
) -> None:
    tenants = TenantPool(one_session)
    async with tenants.connection(ACME) as connection:
        pid = connection.info.backend_pid
    with connect(database_url) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        async with tenants.connection(OTHER):
            pass
    async with tenants.connection(OTHER) as connection:
        assert await _seen(connection) == {OTHER}


async def _seen(connection: Any) -> set[str]:
    rows = await (await connection.execute("SELECT tenant FROM graphwright.graphs")).fetchall()
    return {row["tenant"] for row in rows}


def test_who_migrates_need_not_be_superuser(postgres_url: str, template_database: str) -> None:
    """It must own the database, and be able to take the role; else it is told what to do."""
    assert template_database  # so the role is there, as it may be
    name = f"owner_{secrets.token_hex(8)}"
    url = _as(services.with_database(postgres_url, name), name)
    who, role = Identifier(name), Identifier(TENANT_ROLE)
    with connect(postgres_url) as system:
        system.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(who))
        system.execute(SQL("CREATE DATABASE {} OWNER {}").format(who, who))
        try:
            with pytest.raises(errors.InsufficientPrivilege, match="may not take") as refused:
                migrate(url)
            assert refused.value.diag.message_hint == (
                f"Let a superuser run: GRANT {TENANT_ROLE} TO {name}"
            )
            system.execute(SQL("GRANT {} TO {}").format(role, who))
            services.create_tables(url)
            with blocking_tenant_sessions(url) as sessions:
                with BlockingTenantPool(sessions).connection(ACME) as session:
                    session.execute("INSERT INTO graphwright.tenants (tenant) VALUES ('acme')")
                with BlockingTenantPool(sessions).connection(OTHER) as session:
                    seen = session.execute("SELECT tenant FROM graphwright.tenants").fetchall()
                    assert seen == [{"tenant": ""}]
        finally:
            services.drop_database(postgres_url, name)
            system.execute(SQL("DROP ROLE {}").format(who))


def _as(url: str, user: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:x@{host}"))
