"""A run, and how clients follow it over SSE and WebSocket."""

import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx
import pytest
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dynamic_jobs.reading.events import channel_of
from foundation.settings import Settings
from tests.dynamic_jobs.run_rows import RunRows

SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def rows(settings: Settings) -> RunRows:
    """A run of tenant ``acme`` that is still queued."""
    return RunRows(settings.database_url, settings.redis_url)


def url_of(rows: RunRows) -> str:
    return f"/api/v1/runs/{rows.run_id}/events"


def blocks(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The blocks of an event stream: values by the names of their fields, "" of a comment."""
    block: dict[str, str] = {}
    for text in lines:
        if not text:
            yield block
            block = {}
        else:
            name, _, value = text.partition(": ")
            block[name.strip(":")] = value


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for block in blocks(lines):
        if "data" in block:
            event = json.loads(block["data"])
            assert (block["id"], block["event"]) == (event["id"], event["type"])
            yield event


@contextmanager
def stream(
    client: httpx.Client, rows: RunRows, **headers: str
) -> Generator[tuple[httpx.Response, Iterator[dict[str, Any]]]]:
    with client.stream("GET", url_of(rows), headers=SSE | headers) as response:
        yield response, events(response.iter_lines())


def wait_until_watched(rows: RunRows, *, watched: bool = True) -> None:
    """Until a server listens to the run's channel, or until none does any more."""
    channel = channel_of(rows.run_id)
    with redis.from_url(rows.redis_url, decode_responses=True) as client:  # waits as it has to
        while bool(dict(client.pubsub_numsub(channel))[channel]) != watched:
            time.sleep(0.001)  # the server's turn, which is in this process


@contextmanager
def websocket(
    api_url: str, rows: RunRows, token: str = "", query: str = "", **options: Any
) -> Generator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"ws{api_url.removeprefix('http')}/api/v1/runs/{rows.run_id}/ws{query}"
    with connect(address, additional_headers=headers, open_timeout=60, **options) as connection:  # pyright: ignore[reportUnknownVariableType]
        yield cast("ClientConnection", connection)


def received(connection: ClientConnection) -> tuple[list[Any], int]:
    """All messages until the server closes, and its code."""
    got: list[Any] = []
    while True:
        try:
            got.append(json.loads(connection.recv(timeout=60)))
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return got, closed.rcvd.code
