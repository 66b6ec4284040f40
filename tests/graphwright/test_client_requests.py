"""What the client sends, and what it sends again: to a server that answers as it is told."""

import inspect
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import anyio
import pytest

from foundation.errors import (
    Conflict,
    GraphwrightError,
    Invalid,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from graphwright.client import AsyncClient, Changed, Client, RequestRefused
from graphwright.client.types import Event, Graph, Run
from tests.graphwright.scripted_api import QUICK, RUN, Reply, Request, api, problem


def frame(identity: str, kind: str = "node.log") -> bytes:
    event: dict[str, Any] = {"id": identity, "type": kind, "run_id": "r", "data": {}}
    return f"id: {identity}\r\nevent: {kind}\r\ndata: {json.dumps(event)}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", Unauthenticated),
        (404, "not_found", NotFound),
        (409, "conflict", Conflict),
        (412, "precondition_failed", Changed),
        (418, "teapot", RequestRefused),
        (429, "quota_exceeded", QuotaExceeded),
        (500, "internal", RequestRefused),
    ],
)
def test_a_problem_is_the_error_of_its_status(
    status: int, code: str, kind: type[GraphwrightError]
) -> None:
    with api(problem(status, code, hint="h")) as told, Client(told.url, retry=QUICK) as client:
        with pytest.raises(kind) as caught:
            client.graphs.pause("g")
        error = caught.value
        assert (error.status, error.code, error.hint) == (status, code, "h")
        assert error.ids == {"request_id": "q"}


def test_every_fault_of_a_document_is_told() -> None:
    fault = {"pointer": "/a", "code": "c", "message": "m", "hint": ""}
    with (
        api(problem(422, "invalid", errors=[fault, fault])) as told,
        Client(told.url) as client,
        pytest.raises(Invalid) as caught,
    ):
        client.graphs.apply("{}")
    assert [each.as_dict() for each in caught.value.faults] == [fault, fault]


@pytest.mark.parametrize(
    "first",
    [
        problem(503, "unavailable"),
        problem(503, "in_doubt"),
        problem(429, "rate_limited"),
        Reply(hang_up=True),
    ],
)
def test_what_is_safe_to_repeat_is_repeated(first: Reply) -> None:
    with api(first, Reply(200, RUN)) as told, Client(told.url, retry=QUICK) as client:
        assert client.runs.get("r") == RUN
        assert client.runs.start("g", {"n": 1}) == RUN
    assert len(told.requests) == 3


def test_a_start_that_is_repeated_is_one_run() -> None:
    with (
        api(Reply(hang_up=True), Reply(202, RUN)) as told,
        Client(told.url, retry=QUICK) as client,
    ):
        client.runs.start("g", idempotency_key="mine")
        told.replies[:] = [Reply(hang_up=True), Reply(202, RUN)]
        client.runs.start("g")
        client.runs.start("g")
    keys = [request.headers["Idempotency-Key"] for request in told.requests]
    assert keys[:2] == ["mine", "mine"]
    assert keys[2] == keys[3] != keys[4]


def test_what_is_not_safe_to_repeat_is_sent_once() -> None:
    for first in (problem(503, "unavailable"), Reply(hang_up=True)):
        with api(first) as told, Client(told.url, retry=QUICK) as client:
            with pytest.raises(Unavailable):
                client.runs.cancel("r")
            assert len(told.requests) == 1


def test_attempts_are_counted_and_retry_after_is_heeded() -> None:
    with api(problem(503, "unavailable")) as told, Client(told.url, retry=QUICK) as client:
        with pytest.raises(Unavailable):
            client.runs.get("r")
        assert len(told.requests) == 3
        told.replies[:] = [problem(429, "rate_limited", headers={"Retry-After": "100"})]
        with pytest.raises(RateLimited) as caught:
            client.runs.get("r")
        assert len(told.requests) == 4
        assert caught.value.retry_after == 100


def test_a_list_is_all_of_its_pages() -> None:
    pages = [Reply(200, {"items": [1, 2], "next_cursor": "c d"}), Reply(200, {"items": [3]})]
    with api(*pages) as told, Client(told.url) as client:
        listed = client.graphs.list(label={"team": "geo", "tier": "1"})
        assert list(listed) == [1, 2, 3]
    assert [request.path for request in told.requests] == [
        "/api/v1/graphs?label=team%3Ageo&label=tier%3A1&limit=100",
        "/api/v1/graphs?label=team%3Ageo&label=tier%3A1&limit=100&cursor=c+d",
    ]


def test_a_stream_goes_on_where_it_was() -> None:
    streams = [
        Reply(200, frame("1") + frame("2") + frame("3")[:-9], hang_up=True),
        problem(503, "unavailable", headers={"Retry-After": "0"}),
        Reply(200, b": shutting_down\r\n\r\n", hang_up=True),
        Reply(200, frame("3") + frame("4", "run.succeeded") + frame("5")),
    ]
    with api(*streams) as told, Client(told.url, retry=QUICK) as client:
        assert [event["id"] for event in client.runs.events("r")] == ["1", "2", "3", "4"]
    assert [request.headers.get("Last-Event-ID") for request in told.requests] == [
        None, "2", "2", "2",
    ]  # fmt: skip


def test_a_stream_without_an_event_goes_on_where_it_was() -> None:
    streams = [
        Reply(200, b"id: p1\r\nretry: 0\r\n\r\n", hang_up=True),
        Reply(200, b"id: p1\r\n\r\n: heartbeat\r\nid: p2\r\n\r\n", hang_up=True),
        Reply(200, frame("p3")),
    ]

    async def first(url: str) -> None:
        async with AsyncClient(url, retry=QUICK) as client:
            assert (await anext(client.events()))["id"] == "p3"

    with api(*streams) as told, Client(told.url, retry=QUICK) as client:
        assert next(client.events())["id"] == "p3"
        told.replies[:] = streams
        anyio.run(first, told.url)
    positions = [request.headers.get("Last-Event-ID") for request in told.requests]
    assert positions == [None, "p1", "p2"] * 2


@pytest.mark.parametrize(
    ("reply", "hint"),
    [
        (Reply(302, b"", {"Location": "https://login.example.org/"}), "login.example.org"),
        (Reply(200, b"<html></html>", {"Content-Type": "text/html"}), "the API's URL"),
    ],
)
def test_what_is_no_answer_of_the_api_is_refused(reply: Reply, hint: str) -> None:
    with api(reply) as told, Client(told.url, retry=QUICK) as client:
        with pytest.raises(RequestRefused, match=str(reply.status)) as caught:
            client.runs.get("r")
        assert hint in caught.value.hint
        with pytest.raises(RequestRefused):
            list(client.graphs.list())
        with pytest.raises(RequestRefused):
            client.graphs.get("g")
    with api(reply) as told, Client(told.url, api_key="k", retry=QUICK) as client:
        with pytest.raises(RequestRefused):
            client.runs.get("r")
        assert [request.method for request in told.requests] == ["POST"]
    with api(Reply(302, b"", {"Location": "/"})) as told, Client(told.url) as client:
        with pytest.raises(RequestRefused):
            list(client.runs.events("r"))
        assert len(told.requests) == 1


def test_an_error_of_another_server_is_that_of_its_status() -> None:
    with (
        api(Reply(404, {"errors": ["of its own"]})) as told,
        Client(told.url) as client,
        pytest.raises(NotFound),
    ):
        client.runs.get("r")


def test_a_stream_that_gives_nothing_is_given_up() -> None:
    with api(Reply(200, b": unavailable\r\n\r\n", hang_up=True)) as told:
        with Client(told.url, retry=QUICK) as client, pytest.raises(Unavailable, match="unavail"):
            list(client.runs.events("r", after="7"))
        assert [request.headers["Last-Event-ID"] for request in told.requests] == ["7"] * 4
    with api(Reply(204, b"")) as told, Client(told.url) as client:
        assert list(client.runs.events("r", after="9")) == []


def test_a_fault_of_a_stream_is_raised() -> None:
    with (
        api(problem(404, "not_found")) as told,
        Client(told.url) as client,
        pytest.raises(NotFound),
    ):
        list(client.runs.events("r"))


@pytest.mark.anyio
async def test_the_asynchronous_client_does_the_same() -> None:
    streams = [
        problem(503, "unavailable"),
        Reply(200, frame("1"), hang_up=True),
        Reply(200, frame("2", "run.failed")),
        Reply(200, {**RUN, "status": "failed"}),
    ]
    with api(*streams) as told:
        async with AsyncClient(told.url, retry=QUICK) as client:
            run = await client.runs.wait("r", timeout=60)
        assert run["status"] == "failed"
    pages = [Reply(200, {"items": [1, 2], "next_cursor": "c"}), Reply(200, {"items": [3]})]
    with api(*pages) as told:
        async with AsyncClient(told.url, retry=QUICK) as client:
            assert [each async for each in client.runs.list()] == [1, 2, 3]
    with api(Reply(hang_up=True)) as told:
        async with AsyncClient(told.url, retry=QUICK) as client:
            with pytest.raises(Unavailable):
                await client.runs.get("r")
    assert len(told.requests) == 3


def silent(_: Request) -> Reply:
    threading.Event().wait(5)
    return Reply(204, b"")


def test_waiting_ends_with_its_timeout() -> None:
    with api(silent) as told:
        with Client(told.url) as client, pytest.raises(TimeoutError):
            client.runs.wait("r", timeout=0.05)

        async def wait() -> None:
            async with AsyncClient(told.url) as client:
                with pytest.raises(TimeoutError):
                    await client.runs.wait("r", timeout=0.05)

        anyio.run(wait)


def test_types_follow_the_client() -> None:
    def one(client: Client) -> None:
        assert_type(client.runs.get("r"), Run)
        assert_type(client.graphs.list(), Iterator[Graph])
        assert_type(client.runs.events("r"), Iterator[Event])

    async def other(client: AsyncClient) -> None:
        assert_type(await client.runs.get("r"), Run)
        assert_type(await client.runs.wait("r"), Run)
        assert_type(client.graphs.list(), AsyncIterator[Graph])
        assert_type(client.runs.events("r"), AsyncIterator[Event])

    assert one is not other  # pyright checks them


def test_operations_have_their_names_and_words() -> None:
    with Client("http://x") as client:
        for method in (client.runs.start, client.graphs.list, client.runs.events):
            assert method.__doc__
        assert list(inspect.signature(client.runs.get).parameters) == ["self", "run_id"]
