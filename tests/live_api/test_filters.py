"""Filters of the lists of graphs and runs over HTTP."""

from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from foundation.database import connect
from foundation.settings import Settings
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import publish
from tests.live_api.test_runs import environment, pointers, start

__all__ = ["environment"]

LABELS: dict[str, dict[str, str]] = {
    "a": {"team": "geo", "stage": "prod"},
    "b": {"team": "geo"},
    "c": {"team": "it", "stage": "prod", "odd": "x:y \N{SNOWMAN}"},
    "d": {},
}


@pytest.fixture
def labelled(client: httpx.Client) -> httpx.Client:
    """A client with graphs a to d, labelled."""
    for name, labels in LABELS.items():
        publish(client, name, labels=labels).raise_for_status()
    return client


def graphs(client: httpx.Client, *labels: str) -> list[str]:
    answer = client.get("/api/v1/graphs", params={"label": list(labels)})
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["items"]]


def runs(client: httpx.Client, **query: Any) -> list[str]:
    """All pages' runs."""
    found: list[str] = []
    while True:
        answer = client.get("/api/v1/runs", params=query)
        assert answer.status_code == 200, answer.text
        found += [each["run_id"] for each in answer.json()["items"]]
        if (cursor := answer.json()["next_cursor"]) is None:
            return found
        query["cursor"] = cursor


def newest_first(run_ids: Iterable[str]) -> list[str]:
    return sorted(run_ids, reverse=True)


def test_graphs_by_label(labelled: httpx.Client) -> None:
    assert graphs(labelled) == ["d", "c", "b", "a"]
    assert graphs(labelled, "team:geo") == ["b", "a"]
    assert graphs(labelled, "team:geo", "stage:prod") == ["a"]
    assert graphs(labelled, "stage:prod", "team:geo") == ["a"]
    assert graphs(labelled, "odd:x:y \N{SNOWMAN}") == ["c"]
    assert graphs(labelled, "team:") == []
    assert graphs(labelled, "team:geo", "team:it") == []


def test_labels_follow_the_published_version(labelled: httpx.Client) -> None:
    publish(labelled, "a", 2, labels={"team": "it"}).raise_for_status()
    assert graphs(labelled, "team:it") == ["c", "a"]
    assert graphs(labelled, "stage:prod") == ["c"]
    labelled.post("/api/v1/graphs/a/rollback", json={"version": 1}).raise_for_status()
    assert graphs(labelled, "stage:prod") == ["c", "a"]
    assert graphs(labelled, "team:it") == ["c"]
    labelled.delete("/api/v1/graphs/a").raise_for_status()
    assert graphs(labelled, "stage:prod") == ["c"]
    publish(labelled, "a", labels={"stage": "prod"}).raise_for_status()
    assert graphs(labelled, "stage:prod") == ["a", "c"]


def test_pages_of_labelled_graphs(client: httpx.Client) -> None:
    for n in range(5):
        publish(client, f"g{n}", labels={"team": "geo" if n % 2 == 0 else "it"})
    first = client.get("/api/v1/graphs?label=team:geo&limit=2").json()
    assert [each["name"] for each in first["items"]] == ["g4", "g2"]
    query = f"label=team:geo&limit=2&cursor={first['next_cursor']}"
    second = client.get(f"/api/v1/graphs?{query}").json()
    assert [each["name"] for each in second["items"]] == ["g0"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    "label", ["team", ":geo", "", "-a:b", "te am:geo", "a:b%00", "a:" + "b" * 400]
)
@pytest.mark.parametrize("path", ["graphs", "runs"])
def test_what_is_no_label(client: httpx.Client, path: str, label: str) -> None:
    answer = client.get(f"/api/v1/{path}?label={label}")
    assert pointers(answer) == ["/label/0"]


@pytest.mark.parametrize("path", ["graphs", "runs"])
def test_too_many_labels(client: httpx.Client, path: str) -> None:
    query = "&".join(f"label=a:{n}" for n in range(17))
    assert pointers(client.get(f"/api/v1/{path}?{query}")) == ["/label"]


def test_runs_by_label_status_and_graph(labelled: httpx.Client, settings: Settings) -> None:
    started = {
        (graph, n): start(labelled, graph).json()["run_id"] for n in range(4) for graph in "abcd"
    }
    status = {0: "queued", 1: "running", 2: "failed", 3: "succeeded"}
    with connect(settings.database_url) as connection:
        for (_, n), run_id in started.items():
            connection.execute(
                "UPDATE graphwright.runs SET status = %s, error = %s WHERE run_id = %s",
                (status[n], '{"code": "timeout"}' if n == 2 else None, run_id),
            )

    def expected(of: str, *statuses: int) -> list[str]:
        return newest_first(
            run_id for (graph, n), run_id in started.items() if graph in of and n in statuses
        )

    for limit in (1, 3, 200):
        assert runs(labelled, limit=limit) == expected("abcd", 0, 1, 2, 3)
        assert runs(labelled, status=["failed"], limit=limit) == expected("abcd", 2)
        both = ["failed", "running", "failed"]
        assert runs(labelled, status=both, limit=limit) == expected("abcd", 1, 2)
        assert runs(labelled, label=["team:geo"], limit=limit) == expected("ab", 0, 1, 2, 3)
        assert runs(labelled, label=["team:geo", "stage:prod"], status=both, limit=limit) == (
            expected("a", 1, 2)
        )
        assert runs(labelled, label=["team:geo"], graph="b", limit=limit) == expected(
            "b", 0, 1, 2, 3
        )
        assert runs(labelled, label=["team:geo"], graph="c", limit=limit) == []
        assert runs(labelled, label=["stage:prod"], error="timeout", limit=limit) == (
            expected("ac", 2)
        )
        assert runs(labelled, status=["running", "failed"], error="timeout", graph="d") == (
            expected("d", 2)
        )


def test_bad_statuses(client: httpx.Client) -> None:
    assert pointers(client.get("/api/v1/runs?status=failed&status=broken")) == ["/status/1"]


def test_labels_of_another_tenant(labelled: httpx.Client, client_for: ClientFor) -> None:
    start(labelled, "a")
    others = client_for("other")
    assert graphs(others, "team:geo") == []
    assert runs(others, label=["team:geo"]) == []
    publish(others, "mine", labels={"team": "geo"})
    assert graphs(others, "team:geo") == ["mine"]
    assert graphs(labelled, "team:geo") == ["b", "a"]
