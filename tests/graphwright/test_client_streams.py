"""The client's streams against a real API that goes away and comes back."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
from dagster import DagsterEventType

from foundation.settings import Limits, Settings
from graphwright.client import AsyncClient, Client, Retry
from live_api.app import create_app
from live_api.server import Server
from live_api.serving import listen
from tests.dynamic_jobs.run_rows import RunRows, entry, ran
from tests.live_api.conftest import TokenFor, token_for
from tests.services import free_port

__all__ = ["token_for"]

RETRY = Retry(stream_attempts=60, most_seconds=0.5)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With a port that is the API's alone, also while it is away."""
    return settings.model_copy(update={"api_port": free_port()})


@contextmanager
def serving(settings: Settings, limits: Limits) -> Generator[None]:
    """An API on that port; it stops in order."""
    listener = listen("the API", "API", settings.api_host, settings.api_port)
    server = Server(create_app(settings, limits))
    thread = threading.Thread(target=server.run, args=([listener],), name="api", daemon=True)
    thread.start()
    try:
        yield
    finally:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the API did not stop"


@pytest.fixture
def url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.api_port}"


@pytest.fixture
def rows(settings: Settings) -> RunRows:
    return RunRows(settings.database_url, settings.redis_url)


@pytest.fixture
def restarting(
    settings: Settings, limits: Limits, rows: RunRows
) -> Generator[Callable[[threading.Barrier], threading.Thread]]:
    """An API that stops each time that all are at the barrier, and comes back; the run goes on
    meanwhile."""
    threads: list[threading.Thread] = []

    def start(seen: threading.Barrier) -> threading.Thread:
        def serve() -> None:
            rows.write(entry(DagsterEventType.RUN_ENQUEUED))
            rows.write(entry(DagsterEventType.RUN_START))
            with serving(settings, limits):
                rows.write(*ran("a"))
                seen.wait()
            rows.write(*ran("b"))
            with serving(settings, limits):
                seen.wait()
            rows.succeed({"n": 1})
            with serving(settings, limits):
                seen.wait()

        threads.append(threading.Thread(target=serve, name="restarting", daemon=True))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def meets(kind: str) -> bool:
    """Whether the API waits until this event has been seen: the last that it had written."""
    return kind in {"node.succeeded", "run.succeeded"}


def test_a_restarted_api_costs_no_event(
    restarting: Callable[[threading.Barrier], threading.Thread],
    url: str,
    token_for: TokenFor,
    rows: RunRows,
) -> None:
    seen = threading.Barrier(3, timeout=60)
    restarting(seen)
    token = token_for()
    found: list[Any] = []

    async def follow() -> None:
        async with AsyncClient(url, token, retry=RETRY) as client:
            async for event in client.runs.events(rows.run_id):
                found.append(event)
                if meets(event["type"]):
                    await asyncio.to_thread(seen.wait)

    other = threading.Thread(target=lambda: asyncio.run(follow()), daemon=True)
    other.start()
    got: list[Any] = []
    with Client(url, token, retry=RETRY) as client:
        for event in client.runs.events(rows.run_id):
            got.append(event)
            if meets(event["type"]):
                seen.wait()
    other.join(60)
    assert got == rows.events
    assert found == rows.events


def test_a_stream_outlives_its_token(
    settings: Settings, limits: Limits, url: str, token_for: TokenFor, rows: RunRows
) -> None:
    """The API ends a stream with its token; the client comes back with the next one."""
    rows.write(entry(DagsterEventType.RUN_ENQUEUED))
    asked: list[str] = []

    def token() -> str:
        asked.append(token_for(lifetime=60 if asked else 1.5))
        if len(asked) == 2:  # nothing has happened in the run meanwhile
            rows.write(entry(DagsterEventType.RUN_START))
            rows.succeed({"n": 1})
        return asked[-1]

    with serving(settings, limits), Client(url, token, retry=RETRY) as client:
        assert list(client.runs.events(rows.run_id)) == rows.events
    assert len(asked) == 2
