"""Fixtures that every test may ask for: real PostgreSQL, real Valkey, settings, limits.

``GRAPHWRIGHT_TEST_DATABASE_URL`` names a server to use instead of the embedded one; its role must
be allowed to create databases. ``GRAPHWRIGHT_TEST_REDIS_URL`` likewise, with as many numbered
databases as there are test processes.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import certifi
import hypothesis
import pytest
import redis

from foundation.garbage import collector_paused
from foundation.settings import Limits, Settings
from graphwright.embedded import EmbeddedPostgres, EmbeddedValkey
from tests import services
from tests.clock import Clock
from tests.databases import Databases
from tests.forking import FOLDER, ForkingServer

_PREFIX = "graphwright-test-"
_DATABASE_URL = "GRAPHWRIGHT_TEST_DATABASE_URL"
_REDIS_URL = "GRAPHWRIGHT_TEST_REDIS_URL"
_SERVERS = pytest.StashKey[list[EmbeddedPostgres | EmbeddedValkey]]()
_OWNED = pytest.StashKey[BinaryIO]()
_FORKING = pytest.StashKey[ForkingServer]()


def _is_main_process(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")  # what pytest-xdist gives to its workers


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores it for what it starts in the background; Dagster makes SIGTERM the same, and
    # processes of tests inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # No test fails for being slow: the machine may have other work.
    hypothesis.settings.register_profile(
        "timeless", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("timeless")
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
    os.environ[FOLDER] = str(folder)
    config.stash[_FORKING] = ForkingServer(folder)
    os.environ["SSL_CERT_FILE"] = str(_one_authority(folder / "authority.pem"))


def _one_authority(path: Path) -> Path:
    """Instead of the 140 that httpx would read for each client, which takes 20 ms of CPU."""
    end = "-----END CERTIFICATE-----\n"
    path.write_text(Path(certifi.where()).read_text("utf-8").partition(end)[0] + end)
    return path


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays, so looking for garbage in it is in vain."""
    with collector_paused():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups, which one process works through, begin first, so that none of them is the last."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_main_process(config) or FOLDER not in os.environ:
        return
    folder = Path(os.environ.pop(FOLDER))
    config.stash[_FORKING].close()
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
    return Path(os.environ[FOLDER])


@pytest.fixture(scope="session")
def postgres_url(services_folder: Path, pytestconfig: pytest.Config) -> str:
    """A PostgreSQL server, at a database in which one may create others."""
    if url := os.environ.get(_DATABASE_URL):
        return url
    server = services.SharedPostgres(services_folder)
    pytestconfig.stash[_SERVERS].append(server)
    return server.start()


@pytest.fixture(scope="session")
def template_database(postgres_url: str, services_folder: Path) -> str:
    """The name of a database with all tables and no rows."""
    name = _template(services_folder)
    with services.exclusive(services_folder / "template.lock"):
        services.ensure_template(postgres_url, name)
    return name


@pytest.fixture(scope="session")
def databases(postgres_url: str, template_database: str) -> Generator[Databases]:
    """Copies of the template for the tests of this process."""
    databases = Databases(postgres_url, template_database)
    yield databases
    databases.close()


@pytest.fixture
def database_url(databases: Databases) -> Generator[str]:
    """A database of this test's own, with all tables, ours and Dagster's."""
    with databases.lend() as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url(services_folder: Path, pytestconfig: pytest.Config) -> str:
    """A Redis server."""
    if url := os.environ.get(_REDIS_URL):
        return url
    server = EmbeddedValkey(services_folder)
    pytestconfig.stash[_SERVERS].append(server)
    return server.start()


@pytest.fixture(scope="session")
def shared_redis_url(valkey_url: str) -> str:
    """The database of this test process, with whatever is in it."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return f"{valkey_url}{'&' if '?' in valkey_url else '?'}db={number}"


@pytest.fixture
def redis_url(shared_redis_url: str) -> str:
    """An empty database of this test process; channels are shared, so name them by a fresh id."""
    with redis.from_url(shared_redis_url) as client:
        client.flushdb()  # pyright: ignore[reportUnknownMemberType]
    return shared_redis_url


@pytest.fixture(scope="session")
def usual_settings(services_folder: Path) -> Settings:
    """Made once: reading each of them from the environment takes 10 ms."""
    return Settings(state=services_folder / "no stack", api_port=0)


@pytest.fixture
def settings(
    usual_settings: Settings, database_url: str, redis_url: str, tmp_path: Path
) -> Settings:
    """Settings with a state folder, a database and a Redis of this test's own."""
    own = {"state": tmp_path / "state", "database_url": database_url, "redis_url": redis_url}
    return usual_settings.model_copy(update=own)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """``time.time`` of this process: no minute ends and no token expires but by ``forward``."""
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.fixture(scope="session")
def limits() -> Limits:
    """The limits as they are out of the box."""
    return Limits()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """``@pytest.mark.anyio`` runs a coroutine on asyncio."""
    return "asyncio"
