"""Streams that the server ends: it stops, the client does not read, its token expires."""

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from dagster import DagsterEventType
from starlette.types import Message

from dynamic_jobs.reading.stream_inbox import Inbox
from foundation.settings import Limits, Settings
from live_api.streams.clients import Client, Clients
from live_api.streams.event_stream import EventStream
from tests.clock import Clock
from tests.dynamic_jobs.run_rows import RunRows, entry, line
from tests.live_api.conftest import TokenFor, serving
from tests.live_api.run_streams import (
    SSE,
    blocks,
    received,
    rows,
    stream,
    url_of,
    wait_until_watched,
    websocket,
)

__all__ = ["rows"]


def test_stopping_ends_streams_in_order(
    settings: Settings, limits: Limits, token_for: TokenFor, rows: RunRows
) -> None:
    """Clients are told to come back; on another server they miss nothing."""
    headers = {"Authorization": f"Bearer {token_for()}"}
    rows.write(entry(DagsterEventType.RUN_ENQUEUED))
    with ExitStack() as clients:
        with serving(settings, limits) as url:
            address = url + url_of(rows)
            response = clients.enter_context(
                httpx.stream("GET", address, headers=SSE | headers, timeout=60)
            )
            connection = clients.enter_context(websocket(url, rows, token_for()))
            told = blocks(response.iter_lines())
            assert next(told) == {"retry": "1000"}
            assert next(told)["event"] == "run.queued"
            assert json.loads(connection.recv(timeout=60)) == rows.events[0]
        # The server has stopped within the time that `serving` gives it.
        assert list(told) == [{"": "shutting_down: this server is going away"}]
        assert received(connection) == ([], 1012)
    rows.succeed()
    last = {"Last-Event-ID": rows.events[0]["id"]}
    with (
        serving(settings, limits) as url,
        httpx.Client(base_url=url, headers=headers) as client,
        stream(client, rows, **last) as (_, more),
    ):
        assert list(more) == rows.events[1:]


def test_sigterm_ends_streams_in_order(
    settings: Settings, token_for: TokenFor, rows: RunRows
) -> None:
    program = (
        "import sys; from live_api.app import create_app; from live_api.server import Server\n"
        "from foundation.settings import Limits, Settings\n"
        "class Told(Server):\n"
        "    async def startup(self, sockets=None):\n"
        "        await super().startup(sockets); print(self.url, flush=True)\n"
        "Told(create_app(Settings(), Limits())).run()\n"
    )
    environment = os.environ | {
        "GRAPHWRIGHT_STATE": str(settings.state),
        "GRAPHWRIGHT_DATABASE_URL": settings.database_url,
        "GRAPHWRIGHT_REDIS_URL": settings.redis_url,
    }
    headers = SSE | {"Authorization": f"Bearer {token_for()}"}
    arguments = [sys.executable, "-c", program]
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.stream("GET", url + url_of(rows), headers=headers, timeout=60) as response:
            told = blocks(response.iter_lines())
            assert next(told) == {"retry": "1000"}
            process.terminate()
            assert list(told) == [{"": "shutting_down: this server is going away"}]
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said


NARROW = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 2**10)]
"""Or loopback would buffer all that the slow clients below do not read."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's with clients who take nothing: writing it all takes long on a busy machine."""
    defaults = Clients.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "send_seconds", 3_600.0)


def write_more_than_waits(rows: RunRows) -> None:
    for _ in range(60):
        rows.write(*(line("a", "x" * 1_500) for _ in range(150)))


@pytest.mark.usefixtures("patience")
def test_an_event_stream_that_does_not_read_in_time_is_cut_and_may_resume(
    api_url: str, client: httpx.Client, token_for: TokenFor, rows: RunRows
) -> None:
    headers = {"Authorization": f"Bearer {token_for()}"}
    transport = httpx.HTTPTransport(socket_options=NARROW)
    rows.write(line("a", "first"))
    with (
        httpx.Client(base_url=api_url, headers=headers, transport=transport, timeout=30) as slow,
        slow.stream("GET", url_of(rows), headers=SSE) as response,
    ):
        told = blocks(response.iter_lines())
        assert next(told) == {"retry": "1000"}
        got = [json.loads(next(told)["data"])]
        wait_until_watched(rows)
        for number in range(2):
            rows.write(line("a", str(number)))
            got.append(json.loads(next(told)["data"]))
        write_more_than_waits(rows)
        *more, last = told
    assert last == {"": "slow_client: events come faster than this client takes them"}
    got += [json.loads(block["data"]) for block in more]
    assert got == rows.events[: len(got)]
    rows.succeed()
    with stream(client, rows, **{"Last-Event-ID": got[-1]["id"]}) as (_, received):
        assert got + list(received) == rows.events


@pytest.mark.anyio
async def test_a_client_that_does_not_read_at_all_is_dropped() -> None:
    left = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b": more\r\n\r\n"
        finally:
            left.set()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": "/"}
    async with Clients(turn_seconds=0.01, send_seconds=0.01) as clients:
        client = Client("/", math.inf, lambda _: None, None)
        await EventStream(frames(), clients, client)(scope, receive, send)
        assert left.is_set()


@pytest.mark.anyio
async def test_a_client_to_whom_nothing_was_sent_for_long_gets_a_heartbeat() -> None:
    inbox = Inbox[Any](1)
    sent: list[bytes] = []
    enough = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes]:
        async for _ in inbox:
            yield b"beat"

    async def receive() -> Message:
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if sent.count(b"beat") == 3:
            enough.set()

    scope = {"type": "http", "method": "GET", "path": "/"}
    async with Clients(turn_seconds=0.01, heartbeat_seconds=0.01) as clients:
        client = Client("/", math.inf, inbox.end, inbox.beat)
        await EventStream(frames(), clients, client)(scope, receive, send)
    assert sent.count(b"beat") >= 3


def test_a_token_that_expires_ends_its_streams(
    api_url: str, token_for: TokenFor, rows: RunRows, clock: Clock
) -> None:
    rows.write(entry(DagsterEventType.RUN_ENQUEUED))
    token = token_for(lifetime=3_600)
    headers = SSE | {"Authorization": f"Bearer {token}"}
    with (
        websocket(api_url, rows, token) as connection,
        httpx.stream("GET", api_url + url_of(rows), headers=headers, timeout=60) as response,
    ):
        told = blocks(response.iter_lines())
        assert [next(told), next(told)["event"]] == [{"retry": "1000"}, "run.queued"]
        assert json.loads(connection.recv(timeout=60)) == rows.events[0]
        clock.forward(3_700)
        assert list(told) == [{"": "token_expired: the token has expired"}]
        assert received(connection) == ([], 4401)


@pytest.mark.usefixtures("patience")
def test_a_websocket_that_does_not_read_in_time_is_cut_and_may_resume(
    api_url: str, token_for: TokenFor, rows: RunRows
) -> None:
    narrow = socket.socket()
    narrow.setsockopt(*NARROW[0])
    narrow.connect(("127.0.0.1", int(api_url.rpartition(":")[2])))
    options: dict[str, Any] = {"sock": narrow, "max_queue": 1, "compression": None}
    with websocket(api_url, rows, token_for(), **options) as connection:
        rows.write(line("a", "first"))
        got = [json.loads(connection.recv(timeout=60))]
        wait_until_watched(rows)
        for number in range(2):
            rows.write(line("a", str(number)))
            got.append(json.loads(connection.recv(timeout=60)))
        write_more_than_waits(rows)
        more, code = received(connection)
        got += more
    assert code == 4408
    assert got == rows.events[: len(got)]
    assert len(got) < len(rows.events)
    rows.succeed()
    with websocket(api_url, rows, token_for(), f"?after={got[-1]['id']}") as connection:
        more, code = received(connection)
    assert code == 1000
    assert got + more == rows.events
