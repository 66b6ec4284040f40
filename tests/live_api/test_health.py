"""Liveness and readiness, with PostgreSQL and Redis there or away."""

from collections.abc import Generator
from pathlib import Path

import httpx
import psycopg
import pytest

from foundation.settings import Limits, Settings
from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey
from tests import services
from tests.live_api.conftest import serving


def test_alive_and_ready(anonymous: httpx.Client) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    answer = anonymous.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "redis": "ok"})


def test_without_redis_ready_and_slower(
    database_url: str, services_folder: Path, tmp_path: Path, limits: Limits
) -> None:
    valkey = EmbeddedValkey(tmp_path)
    settings = Settings(state=tmp_path, database_url=database_url, redis_url=valkey.start())
    with serving(settings, limits) as url, httpx.Client(base_url=url) as client:
        assert client.get("/readyz").json()["redis"] == "ok"
        valkey.stop()
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["redis"]) == (200, "away")
        valkey.start()
        assert client.get("/readyz").json()["redis"] == "ok"
        valkey.stop()


def test_database_that_goes_and_comes_back(tmp_path: Path, redis_url: str, limits: Limits) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    services.create_tables(postgres.start())
    settings = Settings(state=tmp_path, database_url=postgres.url, redis_url=redis_url)
    try:
        with serving(settings, limits) as url, httpx.Client(base_url=url, timeout=30) as client:
            assert client.get("/readyz").status_code == 200
            postgres.stop()
            answer = client.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert client.get("/healthz").status_code == 200
            postgres.start()
            assert client.get("/readyz").status_code == 200
    finally:
        postgres.stop()


@pytest.fixture
def empty_database_url(postgres_url: str) -> Generator[str]:
    with services.cloned_database(postgres_url, "template0") as url:
        yield url


def test_not_ready_before_migrations(
    empty_database_url: str, redis_url: str, tmp_path: Path, limits: Limits
) -> None:
    settings = Settings(state=tmp_path, database_url=empty_database_url, redis_url=redis_url)
    with serving(settings, limits) as url, httpx.Client(base_url=url) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "0001_initial.sql" in answer.json()["detail"]
        assert "migrate" in answer.json()["hint"]
        services.create_tables(empty_database_url)
        assert client.get("/readyz").status_code == 200


def test_newer_database_is_ready(anonymous: httpx.Client, database_url: str) -> None:
    """While a release is rolled out, the old one serves on the new one's schema."""
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO graphwright.migrations (name) VALUES ('9999_later.sql')")
    assert anonymous.get("/readyz").status_code == 200
