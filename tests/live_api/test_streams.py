"""A run's events over SSE and as JSON pages, from a real server."""

from typing import Any

import httpx
import pytest
from dagster import DagsterEventType

from tests.dynamic_jobs.run_rows import RunRows, entry, ran
from tests.live_api.conftest import ClientFor
from tests.live_api.run_streams import SSE, events, rows, stream, url_of, wait_until_watched

__all__ = ["rows"]


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


def test_an_event_stream_that_leaves_is_forgotten(client: httpx.Client, rows: RunRows) -> None:
    with stream(client, rows):
        wait_until_watched(rows)
    wait_until_watched(rows, watched=False)
