"""The API over real HTTP: uvicorn on a free port, in a thread of the test process."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest
from fastapi import FastAPI

from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.identity import SCOPES, issue_token, signing_key
from live_api.server import Server

TokenFor = Callable[..., str]
ClientFor = Callable[..., httpx.Client]


@contextmanager
def serving_app(app: FastAPI) -> Generator[str]:
    """The URL of ``app`` until the block ends; then it stops in order."""
    server = Server(app)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the API did not start"
            thread.join(0.01)
        yield server.url
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the API did not stop"


def serving(settings: Settings, limits: Limits) -> AbstractContextManager[str]:
    """The URL of an API until the block ends; then it stops in order."""
    return serving_app(create_app(settings, limits))


def readiness(client: httpx.Client, status: int = 200, *words: str) -> httpx.Response:
    """What ``/readyz`` says, once it has this status and says these words.

    It waits two seconds for PostgreSQL and for Redis, and a pool its time between attempts to
    connect, so one answer alone says nothing for certain.
    """
    deadline = time.monotonic() + 60
    while True:
        answer = client.get("/readyz")
        if answer.status_code == status and all(each in answer.text for each in words):
            return answer
        assert time.monotonic() < deadline, answer.text


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with room for what tests do without a token from one address."""
    return settings.model_copy(update={"requests_per_minute_address": 1_000_000})


@pytest.fixture
def api_url(settings: Settings, limits: Limits) -> Generator[str]:
    with serving(settings, limits) as url:
        yield url


@pytest.fixture
def token_for(settings: Settings) -> TokenFor:
    """``token_for(tenant, scopes=…)``: a token that this test's API accepts."""

    def make(tenant: str = "acme", scopes: tuple[str, ...] = SCOPES, lifetime: float = 3600) -> str:
        return issue_token(signing_key(settings.state), tenant, "ann", scopes, lifetime)

    return make


@pytest.fixture
def client_for(api_url: str, token_for: TokenFor) -> Generator[ClientFor]:
    """``client_for(tenant, scopes=…)``: a client that sends such a token."""
    made: list[httpx.Client] = []

    def make(tenant: str = "acme", scopes: tuple[str, ...] = SCOPES) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token_for(tenant, scopes)}"}
        made.append(httpx.Client(base_url=api_url, headers=headers, timeout=30))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(client_for: ClientFor) -> httpx.Client:
    """Tenant ``acme``, every scope."""
    return client_for()


@pytest.fixture
def anonymous(api_url: str) -> Generator[httpx.Client]:
    """No token."""
    with httpx.Client(base_url=api_url, timeout=30) as client:
        yield client
