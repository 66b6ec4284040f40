"""The events of many runs over SSE, from a real server."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from dagster import DagsterEventType

from foundation.settings import Settings
from tests.dynamic_jobs.run_rows import RunRows, entry, ran
from tests.live_api.conftest import ClientFor, TokenFor
from tests.live_api.run_streams import SSE, blocks


@pytest.fixture
def one(settings: Settings) -> RunRows:
    return RunRows(settings.database_url, settings.redis_url, graph="one")


@pytest.fixture
def two(settings: Settings) -> RunRows:
    return RunRows(settings.database_url, settings.redis_url, graph="two")


@contextmanager
def stream(
    client: httpx.Client, path: str = "events", *, last: str = "", **query: Any
) -> Generator[Iterator[dict[str, str]]]:
    """The blocks of a stream that has begun; the first says where."""
    headers = SSE | ({"Last-Event-ID": last} if last else {})
    with client.stream("GET", f"/api/v1/{path}", params=query, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in response.headers
        told = blocks(response.iter_lines())
        first = next(told)
        assert first["retry"] == "1000"
        assert first["id"]
        yield told


def events(told: Iterator[dict[str, str]], count: int) -> list[dict[str, Any]]:
    return [json.loads(next(told)["data"]) for _ in range(count)]


def test_all_runs_live(client: httpx.Client, one: RunRows, two: RunRows) -> None:
    one.write(entry(DagsterEventType.RUN_ENQUEUED))
    with stream(client) as told:
        one.write(entry(DagsterEventType.RUN_START))
        two.run_whole()
        assert events(told, 1) == one.events[1:]
        assert events(told, len(two.events)) == two.events


def test_resuming_misses_and_repeats_nothing(
    client: httpx.Client, one: RunRows, two: RunRows
) -> None:
    with stream(client) as told:
        one.write(*ran("a"))
        two.write(*ran("a"))
        got = [next(told) for _ in range(8)]
    written = [*one.events, *two.events]
    assert [json.loads(block["data"]) for block in got] == written
    for place, block in enumerate(got[:-1], 1):
        with stream(client, last=block["id"]) as told:
            assert events(told, 8 - place) == written[place:]
        with stream(client, after=block["id"]) as told:
            assert events(told, 8 - place) == written[place:]


def test_a_client_that_got_nothing_resumes_where_it_began(
    client: httpx.Client, one: RunRows
) -> None:
    headers = SSE
    with client.stream("GET", "/api/v1/events", headers=headers) as response:
        begun = next(blocks(response.iter_lines()))["id"]
    one.run_whole()
    with stream(client, last=begun) as told:
        assert events(told, len(one.events)) == one.events


def test_one_graph(client: httpx.Client, one: RunRows, two: RunRows) -> None:
    paths: list[tuple[str, dict[str, Any]]] = [
        ("graphs/two/events", {}),
        (f"graphs/{two.graph_id}/events", {}),
        ("events", {"graph": "two"}),
    ]
    for path, query in paths:
        with stream(client, path, **query) as told:
            one.write(*ran("a"))
            two.write(*ran("a"))
            assert events(told, 4) == two.events[-4:]


def test_filters(client: httpx.Client, settings: Settings, one: RunRows, two: RunRows) -> None:
    from foundation.database import connect

    with connect(settings.database_url) as connection:
        connection.execute(
            """UPDATE graphwright.graphs SET labels = '{"team": "blue"}' WHERE name = 'two'"""
        )
    with (
        stream(client, type=["node.failed", "node.succeeded"]) as of_type,
        stream(client, status=["running", "succeeded"]) as of_status,
        stream(client, label="team:blue") as of_label,
        stream(client, label="team:blue", status="failed", type="run.failed") as of_none,
    ):
        for rows in (one, two):
            rows.run_whole()
        found = [*one.events, *two.events]
        assert events(of_type, 4) == [e for e in found if e["type"] == "node.succeeded"]
        reaching = {"run.started", "run.succeeded"}
        assert events(of_status, 4) == [e for e in found if e["type"] in reaching]
        assert events(of_label, len(two.events)) == two.events
        two.write(entry(DagsterEventType.RUN_FAILURE))
        del of_none


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"graph": "nobody"}, 404),
        ({"type": "node.exploded"}, 422),
        ({"status": "waiting"}, 422),
        ({"label": "nothing"}, 422),
        ({"after": "7"}, 422),
        ({"after": "1-3-2-1"}, 400),
        ({"after": f"0-{10**17}-{10**17}-0"}, 400),
    ],
)
def test_what_cannot_be_followed(
    client: httpx.Client, one: RunRows, query: dict[str, str], status: int
) -> None:
    answer = client.get("/api/v1/events", params=query)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_id_of_a_runs_own_stream_is_no_place_here(client: httpx.Client, one: RunRows) -> None:
    one.write(*ran("a"))
    answer = client.get("/api/v1/events", headers={"Last-Event-ID": one.events[0]["id"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_event_id")


def test_other_tenants(client_for: ClientFor, client: httpx.Client, one: RunRows) -> None:
    other = client_for("other")
    assert other.get("/api/v1/graphs/one/events").status_code == 404
    assert other.get(f"/api/v1/graphs/{one.graph_id}/events").status_code == 404
    assert other.get("/api/v1/events", params={"graph": one.graph_id}).status_code == 404
    own = RunRows(one.database_url, one.redis_url, tenant=type(one.tenant)("other"))
    with stream(client) as mine:
        one.write(*ran("a"))
        position = next(mine)["id"]
    before_it = f"{position.rpartition('-')[0]}-0"
    with stream(other, last=before_it) as told:
        one.write(*ran("b"))
        own.write(*ran("a"))
        assert events(told, 4) == own.events


def test_scope(client_for: ClientFor, token_for: TokenFor) -> None:
    assert client_for(scopes=("graphs:read",)).get("/api/v1/events").status_code == 403
