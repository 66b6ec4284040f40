"""Liveness and readiness, with PostgreSQL and Redis there or away."""

from collections.abc import Generator
from pathlib import Path

import httpx
import psycopg
import pytest

from foundation.errors import Unavailable
from foundation.schema import dagster_schema
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool, tenant_sessions
from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey
from live_api.readiness import check_sessions
from tests import services
from tests.live_api.conftest import readiness, serving


def test_alive_and_ready(anonymous: httpx.Client) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    assert readiness(anonymous, 200, "ok").json() == {"status": "ready", "redis": "ok"}


def test_without_redis_ready_and_slower(
    database_url: str, services_folder: Path, tmp_path: Path, limits: Limits
) -> None:
    valkey = EmbeddedValkey(tmp_path)
    settings = Settings(state=tmp_path, database_url=database_url, redis_url=valkey.start())
    with serving(settings, limits) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert readiness(client, 200, "ok").json()["redis"] == "ok"
        valkey.stop()
        assert readiness(client, 200, "away").json()["redis"] == "away"
        valkey.start()
        assert readiness(client, 200, "ok").json()["redis"] == "ok"
        valkey.stop()


def test_database_that_goes_and_comes_back(tmp_path: Path, redis_url: str, limits: Limits) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    services.create_tables(postgres.start())
    settings = Settings(state=tmp_path, database_url=postgres.url, redis_url=redis_url)
    try:
        with serving(settings, limits) as url, httpx.Client(base_url=url, timeout=30) as client:
            readiness(client)
            postgres.stop()
            answer = client.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert client.get("/healthz").status_code == 200
            postgres.start()
            readiness(client)
    finally:
        postgres.stop()


@pytest.mark.anyio
async def test_not_ready_without_a_session_to_use(database_url: str) -> None:
    async with tenant_sessions(database_url, size=1) as sessions:
        await check_sessions(TenantPool(sessions))
        async with sessions.connection():
            with pytest.raises(Unavailable, match="no session"):
                await check_sessions(TenantPool(sessions))


@pytest.fixture
def empty_database_url(postgres_url: str) -> Generator[str]:
    with services.cloned_database(postgres_url, "template0") as url:
        yield url


def test_not_ready_before_migrations(
    empty_database_url: str, redis_url: str, tmp_path: Path, limits: Limits
) -> None:
    settings = Settings(state=tmp_path, database_url=empty_database_url, redis_url=redis_url)
    with serving(settings, limits) as url, httpx.Client(base_url=url, timeout=30) as client:
        answer = readiness(client, 503, "lacks")
        assert "0001_initial.sql" in answer.json()["detail"]
        assert "migrate" in answer.json()["hint"]
        services.create_tables(empty_database_url)
        readiness(client)


def test_not_ready_at_tables_of_an_older_dagster(
    anonymous: httpx.Client, database_url: str
) -> None:
    known = dagster_schema()
    with psycopg.connect(database_url, autocommit=True) as connection:

        def set_to(revision: str) -> None:
            connection.execute("UPDATE public.alembic_version SET version_num = %s", [revision])

        older = min(known.older)
        set_to(older)
        answer = readiness(anonymous, 503, "lacks")
        assert f"Dagster's migrations from {older} to {known.head}" in answer.json()["detail"]
        assert "migrate" in answer.json()["hint"]
        set_to("abcdef012345")  # of a later release
        readiness(anonymous)
        connection.execute("DROP TABLE public.alembic_version")
        assert "lacks Dagster's tables" in readiness(anonymous, 503, "lacks").json()["detail"]


def test_newer_database_is_ready(anonymous: httpx.Client, database_url: str) -> None:
    """While a release is rolled out, the old one serves on the new one's schema."""
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO graphwright.migrations (name) VALUES ('9999_later.sql')")
    readiness(anonymous)
