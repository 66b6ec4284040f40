"""A run's events over SSE, WebSocket and JSON pages, from a real server."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import httpx
import pytest
from dagster import DagsterEventType
from starlette.types import Message
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from dynamic_jobs.reading.events import channel_of
from foundation.ids import new_id
from foundation.redis import sync_redis
from foundation.settings import Limits, Settings
from live_api.streams import EventStream
from tests.dynamic_jobs.run_rows import RunRows, entry, line, ran
from tests.live_api.conftest import ClientFor, TokenFor, serving

SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


def wait_until_watched(rows: RunRows) -> None:
    channel = channel_of(rows.run_id)
    with sync_redis(rows.redis_url) as redis:
        while not dict(redis.pubsub_numsub(channel))[channel]:
            pass


def test_a_run_live(client: httpx.Client, rows: RunRows) -> None:
    rows.write(entry(DagsterEventType.RUN_ENQUEUED))
    with stream(client, rows) as (response, received):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store"
        assert "content-encoding" not in response.headers
        assert next(received) == rows.events[0]
        wait_until_watched(rows)
        rows.write(entry(DagsterEventType.RUN_START))
        assert next(received) == rows.events[1]
        rows.write(*ran("a", {"text": "line\nbreak\r\u2028"}))
        rows.succeed({"n": 1})
        assert list(received) == rows.events[2:]


def test_resume_after_each_event(client: httpx.Client, rows: RunRows) -> None:
    rows.run_whole()
    for position, event in enumerate(rows.events[:-1], 1):
        with stream(client, rows, **{"Last-Event-ID": event["id"]}) as (_, received):
            assert list(received) == rows.events[position:]
        answer = client.get(url_of(rows), params={"after": event["id"]}, headers=SSE)
        assert list(events(iter(answer.text.splitlines()))) == rows.events[position:]


def test_the_header_is_stronger_than_the_query(client: httpx.Client, rows: RunRows) -> None:
    rows.run_whole()
    headers = SSE | {"Last-Event-ID": rows.events[-2]["id"]}
    answer = client.get(url_of(rows), params={"after": rows.events[0]["id"]}, headers=headers)
    assert list(events(iter(answer.text.splitlines()))) == rows.events[-1:]


def test_breaking_off_at_every_event_misses_nothing(client: httpx.Client, rows: RunRows) -> None:
    """A client with the worst of connections, while the run goes on."""
    steps = [
        [entry(DagsterEventType.RUN_ENQUEUED)],
        [entry(DagsterEventType.RUN_START)],
        ran("a"),
        ran("b"),
        [entry(DagsterEventType.RUN_SUCCESS)],
    ]
    got: list[dict[str, Any]] = []
    while True:
        if steps and len(got) == len(rows.events):
            rows.write(*steps.pop(0))
        last = {"Last-Event-ID": got[-1]["id"]} if got else {}
        with stream(client, rows, **last) as (response, received):
            if response.status_code == 204:
                break
            got.append(next(received))
    assert got == rows.events


def test_past_the_end_there_is_no_content(client: httpx.Client, rows: RunRows) -> None:
    rows.run_whole()
    headers = SSE | {"Last-Event-ID": rows.events[-1]["id"]}
    answer = client.get(url_of(rows), headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("text", ["x", "-1", "1.0", "9" * 19, "\u0661", "0x1"])
def test_a_malformed_last_event_id(client: httpx.Client, rows: RunRows, text: str) -> None:
    answer = client.get(url_of(rows), headers=SSE | {"Last-Event-ID": text.encode()})  # type: ignore[dict-item]
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "bad_event_id"


def test_pages(client: httpx.Client, rows: RunRows) -> None:
    rows.run_whole({"n": 1})
    got: list[Any] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        answer = client.get(url_of(rows), params=query)
        assert answer.headers["content-type"] == "application/json"
        page = answer.json()
        got += page["items"]
        assert page["ended"] == (page["next_cursor"] is None)
        if page["next_cursor"] is None:
            break
        query["after"] = page["next_cursor"]
    assert got == rows.events
    assert client.get(url_of(rows), params={"after": "x"}).status_code == 422
    assert client.get(url_of(rows), params={"limit": 0}).status_code == 422


def test_a_page_of_a_run_under_way(client: httpx.Client, rows: RunRows) -> None:
    empty: dict[str, Any] = {"items": [], "next_cursor": None, "ended": False}
    assert client.get(url_of(rows)).json() == empty
    rows.write(*ran("a"))
    page = client.get(url_of(rows)).json()
    assert page == {"items": rows.events, "next_cursor": None, "ended": False}


def test_streams_ask_for_scope_and_tenant(client_for: ClientFor, rows: RunRows) -> None:
    assert client_for("other").get(url_of(rows), headers=SSE).status_code == 404
    wrong = client_for(scopes=("runs:write",))
    assert wrong.get(url_of(rows), headers=SSE).status_code == 403


@contextmanager
def websocket(
    api_url: str, rows: RunRows, token: str = "", query: str = "", **options: Any
) -> Generator[ClientConnection]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    address = f"ws{api_url.removeprefix('http')}/api/v1/runs/{rows.run_id}/ws{query}"
    with connect(address, additional_headers=headers, **options) as connection:  # pyright: ignore[reportUnknownVariableType]
        yield cast("ClientConnection", connection)


def received(connection: ClientConnection) -> tuple[list[Any], int]:
    """All messages until the server closes, and its code."""
    got: list[Any] = []
    while True:
        try:
            got.append(json.loads(connection.recv(timeout=20)))
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return got, closed.rcvd.code


def test_websocket(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    with websocket(api_url, rows, token_for()) as connection:
        rows.write(entry(DagsterEventType.RUN_ENQUEUED))
        assert json.loads(connection.recv(timeout=10)) == rows.events[0]
        connection.send("what a client says is ignored")
        rows.run_whole()
        assert received(connection) == (
            rows.events[1 : rows.events.index(rows.events[-1]) + 1],
            1000,
        )


def test_websocket_resumes(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    rows.run_whole()
    for position, event in enumerate(rows.events, 1):
        with websocket(api_url, rows, token_for(), f"?after={event['id']}") as connection:
            assert received(connection) == (rows.events[position:], 1000)


def test_websocket_with_a_browsers_token(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    rows.run_whole()
    offered = [Subprotocol("other"), Subprotocol(f"bearer.{token_for()}")]
    with websocket(api_url, rows, subprotocols=offered) as connection:
        assert connection.subprotocol == offered[1]
        assert received(connection) == (rows.events, 1000)


def test_websocket_close_codes(api_url: str, token_for: TokenFor, rows: RunRows) -> None:
    def code(token: str = "", query: str = "", **options: Any) -> int:
        with websocket(api_url, rows, token, query, **options) as connection:
            got, closed = received(connection)
            assert got == []
            return closed

    assert code() == 4401
    assert code("nonsense") == 4401
    assert code(subprotocols=[Subprotocol("bearer.nonsense")]) == 4401
    assert code(token_for(lifetime=-60)) == 4401
    assert code(token_for(scopes=("runs:write",))) == 4403
    assert code(token_for("other")) == 4404
    assert code(token_for(), "?after=x") == 4400
    rows.run_id = type(rows.run_id)(new_id())
    assert code(token_for()) == 4404


def test_a_websocket_that_leaves_is_forgotten(
    api_url: str, token_for: TokenFor, rows: RunRows
) -> None:
    channel = channel_of(rows.run_id)
    with sync_redis(rows.redis_url) as redis:
        with websocket(api_url, rows, token_for()):
            wait_until_watched(rows)
        while dict(redis.pubsub_numsub(channel))[channel]:
            pass


def test_an_event_stream_that_leaves_is_forgotten(client: httpx.Client, rows: RunRows) -> None:
    channel = channel_of(rows.run_id)
    with sync_redis(rows.redis_url) as redis:
        with stream(client, rows):
            wait_until_watched(rows)
        while dict(redis.pubsub_numsub(channel))[channel]:
            pass


def test_stopping_ends_streams_in_order(
    settings: Settings, limits: Limits, token_for: TokenFor, rows: RunRows
) -> None:
    """Clients are told to come back; on another server they miss nothing."""
    headers = {"Authorization": f"Bearer {token_for()}"}
    rows.write(entry(DagsterEventType.RUN_ENQUEUED))
    with ExitStack() as clients:
        with serving(settings, limits) as url:
            address = url + url_of(rows)
            response = clients.enter_context(httpx.stream("GET", address, headers=SSE | headers))
            connection = clients.enter_context(websocket(url, rows, token_for()))
            told = blocks(response.iter_lines())
            assert next(told) == {"retry": "1000"}
            assert next(told)["event"] == "run.queued"
            assert json.loads(connection.recv(timeout=10)) == rows.events[0]
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
        with httpx.stream("GET", url + url_of(rows), headers=headers, timeout=30) as response:
            told = blocks(response.iter_lines())
            assert next(told) == {"retry": "1000"}
            process.terminate()
            assert list(told) == [{"": "shutting_down: this server is going away"}]
        _, said = process.communicate(timeout=30)
        assert "Traceback" not in said


NARROW = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 2**10)]
"""Or loopback would buffer all that the slow clients below do not read."""


def write_more_than_waits(rows: RunRows) -> None:
    for _ in range(60):
        rows.write(*(line("a", "x" * 1_500) for _ in range(150)))


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
    await EventStream(frames(), send_seconds=0.01)(scope, receive, send)
    assert left.is_set()


def test_a_websocket_that_does_not_read_in_time_is_cut_and_may_resume(
    api_url: str, token_for: TokenFor, rows: RunRows
) -> None:
    narrow = socket.socket()
    narrow.setsockopt(*NARROW[0])
    narrow.connect(("127.0.0.1", int(api_url.rpartition(":")[2])))
    options: dict[str, Any] = {"sock": narrow, "max_queue": 1, "compression": None}
    with websocket(api_url, rows, token_for(), **options) as connection:
        rows.write(line("a", "first"))
        got = [json.loads(connection.recv(timeout=10))]
        wait_until_watched(rows)
        for number in range(2):
            rows.write(line("a", str(number)))
            got.append(json.loads(connection.recv(timeout=10)))
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
