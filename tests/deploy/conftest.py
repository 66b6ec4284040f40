"""Each test that asks for manifests runs once for each overlay."""

import pytest

from tests.deploy.manifests import OVERLAYS, Manifests, rendered


@pytest.fixture(scope="session", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return rendered(request.param)


@pytest.fixture(scope="session")
def production() -> Manifests:
    return rendered("production")
