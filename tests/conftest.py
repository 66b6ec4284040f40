"""Fixtures that every test may ask for: real PostgreSQL, real Valkey, settings, limits.

``GRAPHWRIGHT_TEST_DATABASE_URL`` names a server to use instead of the embedded one; its role must
be allowed to create databases. ``GRAPHWRIGHT_TEST_REDIS_URL`` likewise, with as many numbered
databases as there are test processes.
"""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest
import redis

from foundation.settings import Limits, Settings
from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey
from tests import services

_PREFIX = "graphwright-test-"
_FOLDER = "GRAPHWRIGHT_TEST_FOLDER"
_DATABASE_URL = "GRAPHWRIGHT_TEST_DATABASE_URL"
_REDIS_URL = "GRAPHWRIGHT_TEST_REDIS_URL"
_SERVERS = pytest.StashKey[list[EmbeddedPostgres | EmbeddedValkey]]()
_OWNED = pytest.StashKey[BinaryIO]()


def _is_main_process(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")  # what pytest-xdist gives to its workers


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SERVERS] = []  # referred to until the end, for they outlive the tests
    if not _is_main_process(config):
        return
    for name in [name for name in os.environ if name.startswith("GRAPHWRIGHT_")]:
        if not name.startswith("GRAPHWRIGHT_TEST_"):
            del os.environ[name]  # a developer's own stack is none of the tests' business
    # Short, for Unix sockets. Workers inherit it, and the main process stops what they start.
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    config.stash[_OWNED] = services.own(folder)
    os.environ[_FOLDER] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_main_process(config) or _FOLDER not in os.environ:
        return
    folder = Path(os.environ.pop(_FOLDER))
    if url := os.environ.get(_DATABASE_URL):
        services.drop_database(url, _template(folder))
    _clear(folder)
    config.stash[_OWNED].close()


def _clear(folder: Path) -> None:
    EmbeddedPostgres(folder).stop()
    EmbeddedValkey(folder).stop()
    shutil.rmtree(folder)


def _sweep() -> None:
    """Stop the servers of sessions that were killed, which outlive them by design."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if services.is_abandoned(folder):
            with suppress(FileNotFoundError):  # another session sweeps too
                _clear(folder)


def _template(folder: Path) -> str:
    return folder.name.replace("-", "_").lower()


@pytest.fixture(scope="session")
def services_folder() -> Path:
    """Shared by all test processes of this session."""
    return Path(os.environ[_FOLDER])


@pytest.fixture(scope="session")
def postgres_url(services_folder: Path, pytestconfig: pytest.Config) -> str:
    """A PostgreSQL server, at a database in which one may create others."""
    if url := os.environ.get(_DATABASE_URL):
        return url
    server = EmbeddedPostgres(services_folder)
    pytestconfig.stash[_SERVERS].append(server)
    return server.start()


@pytest.fixture(scope="session")
def template_database(postgres_url: str, services_folder: Path) -> str:
    """The name of a database with all tables and no rows."""
    name = _template(services_folder)
    with services.exclusive(services_folder / "template.lock"):
        services.ensure_template(postgres_url, name)
    return name


@pytest.fixture
def database_url(postgres_url: str, template_database: str) -> Generator[str]:
    """A database of this test's own, with all tables, ours and Dagster's."""
    with services.cloned_database(postgres_url, template_database) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url(services_folder: Path, pytestconfig: pytest.Config) -> str:
    """A Redis server."""
    if url := os.environ.get(_REDIS_URL):
        return url
    server = EmbeddedValkey(services_folder)
    pytestconfig.stash[_SERVERS].append(server)
    return server.start()


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """An empty database of this test process; channels are shared, so name them by a fresh id."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    url = f"{valkey_url}{'&' if '?' in valkey_url else '?'}db={number}"
    with redis.from_url(url) as client:
        client.flushdb()  # pyright: ignore[reportUnknownMemberType]
    return url


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings with a state folder, a database and a Redis of this test's own."""
    return Settings(
        state=tmp_path / "state", database_url=database_url, redis_url=redis_url, api_port=0
    )


@pytest.fixture
def limits() -> Limits:
    """The limits as they are out of the box."""
    return Limits()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """``@pytest.mark.anyio`` runs a coroutine on asyncio."""
    return "asyncio"
