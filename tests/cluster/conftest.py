"""One stack for all tests of a module: it costs seconds, and has this process's environment."""

from collections.abc import Generator

import pytest

from foundation.settings import Settings
from tests.cluster.clusters import cluster
from tests.cluster.gates import open_gates
from tests.cluster.stack import Stack, stack
from tests.databases import Databases


@pytest.fixture(scope="module")
def pods(
    databases: Databases, shared_redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("cluster")
    with (
        cluster(folder) as found,
        open_gates(found.host) as gates,
        databases.lend() as database_url,
    ):
        settings = Settings(
            state=folder / "state",
            database_url=database_url,
            redis_url=shared_redis_url,
            api_port=0,
            lease_seconds=5,
            placing_timeout_seconds=30,
            http_private=True,
        )
        with stack(found, gates, settings, folder) as made:
            yield made
