"""ETags over HTTP: what is unchanged is not sent again, and no change is undone unseen."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from dagster import DagsterEventType

from foundation.settings import Settings
from live_api.conditional import PreconditionFailed, check, etag
from tests.dynamic_jobs.run_rows import RunRows, entry, ran
from tests.live_api.test_graphs import document, publish
from tests.live_api.test_problems import check as check_problem
from tests.live_api.test_runs import environment, start

__all__ = ["environment"]

GRAPH = "/api/v1/graphs/digest"


def post(client: httpx.Client, value: object, **headers: str) -> httpx.Response:
    return client.post("/api/v1/graphs", json=document(value=value), headers=headers)


def refused(answer: httpx.Response) -> None:
    check_problem(answer, 412, "precondition_failed")


@pytest.mark.parametrize(
    ("given", "current", "good"),
    [
        ('"a"', '"a"', True),
        ('"b", "a"', '"a"', True),
        ('W/"a"', '"a"', True),
        ("*", '"a"', True),
        (" * ", '"a"', True),
        ("*", None, False),
        ('"a"', None, False),
        ('"b"', '"a"', False),
        ("a", '"a"', False),
        ("", '"a"', False),
        ('"a, "', '"a"', False),
    ],
)
def test_if_match(given: str, current: str | None, good: bool) -> None:
    if good:
        check(given, None, current)
        with pytest.raises(PreconditionFailed):
            check(None, given, current)
    else:
        check(None, given, current)
        with pytest.raises(PreconditionFailed):
            check(given, None, current)


def test_parts_are_told_apart() -> None:
    assert etag("a", "bc") != etag("ab", "c")
    assert etag(1, 2) == etag("1", "2")


@pytest.mark.parametrize(
    "path",
    [
        GRAPH,
        f"{GRAPH}/versions/1",
        "/api/v1/node-types",
        "/api/v1/node-types/data.transform",
    ],
)
def test_what_is_unchanged_is_not_sent(client: httpx.Client, path: str) -> None:
    publish(client)
    first = client.get(path)
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    for known in (tag, f'"x", {tag}', "*", f"W/{tag}"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert client.get(path, headers={"If-None-Match": '"x"'}).json() == first.json()


def test_each_change_of_a_graph_has_its_etag(client: httpx.Client) -> None:
    tags = [post(client, 1).headers["ETag"]]
    assert client.get(GRAPH).headers["ETag"] == tags[0]
    tags.append(post(client, 2).headers["ETag"])
    tags.append(client.post(f"{GRAPH}/pause").headers["ETag"])
    tags.append(client.post(f"{GRAPH}/rollback", json={"version": 1}).headers["ETag"])
    tags.append(client.post(f"{GRAPH}/resume").headers["ETag"])
    assert len(set(tags)) == 5
    assert client.get(GRAPH).headers["ETag"] == tags[-1]
    assert post(client, 1).headers["ETag"] == tags[-1]  # it is published already


def test_changes_of_a_graph_with_if_match(client: httpx.Client) -> None:
    refused(post(client, 1, **{"If-Match": "*"}))
    check_problem(client.get(GRAPH), 404, "not_found")
    first = post(client, 1, **{"If-None-Match": "*"}).headers["ETag"]
    refused(post(client, 2, **{"If-None-Match": "*"}))
    second = post(client, 2, **{"If-Match": first}).headers["ETag"]
    old = {"If-Match": first}
    refused(post(client, 3, **old))
    refused(client.post(f"{GRAPH}/rollback", json={"version": 1}, headers=old))
    refused(client.delete(GRAPH, headers=old))
    graph = client.get(GRAPH)
    assert (graph.json()["version"], graph.headers["ETag"]) == (2, second)
    rolled = client.post(f"{GRAPH}/rollback", json={"version": 1}, headers={"If-Match": second})
    assert rolled.status_code == 200
    refused(client.delete(GRAPH, headers={"If-Match": second}))
    gone = client.delete(GRAPH, headers={"If-Match": rolled.headers["ETag"]})
    assert gone.status_code == 204
    refused(post(client, 1, **{"If-Match": rolled.headers["ETag"]}))


def test_of_changes_at_once_one_wins(client: httpx.Client) -> None:
    tag = publish(client).headers["ETag"]
    for turn in range(5):
        with ThreadPoolExecutor(4) as threads:
            sent = [
                threads.submit(post, client, f"{turn}/{n}", **{"If-Match": tag}) for n in range(4)
            ]
            answers = [each.result() for each in sent]
        assert sorted(answer.status_code for answer in answers) == [201, 412, 412, 412]
        tag = client.get(GRAPH).headers["ETag"]
        assert tag in {answer.headers.get("ETag") for answer in answers}


def test_creating_at_once_only_where_there_is_none(client: httpx.Client) -> None:
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(post, client, n, **{"If-None-Match": "*"}) for n in range(4)]
        assert sorted(each.result().status_code for each in sent) == [201, 412, 412, 412]


def test_a_run_changes_its_etag(client: httpx.Client) -> None:
    publish(client)
    path = start(client).headers["Location"]
    first: Any = client.get(path)
    tag = first.headers["ETag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    client.post(f"{path}/cancel").raise_for_status()
    changed = client.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["status"]) == (200, "cancelled")
    assert changed.headers["ETag"] != tag


def test_each_step_of_a_run_changes_its_etag(client: httpx.Client, settings: Settings) -> None:
    rows = RunRows(settings.database_url)
    path = f"/api/v1/runs/{rows.run_id}"
    tags: list[str] = []
    for entries in (
        [entry(DagsterEventType.RUN_ENQUEUED)],
        [entry(DagsterEventType.RUN_START)],
        ran("a"),
        ran("b"),
        [entry(DagsterEventType.RUN_SUCCESS)],
    ):
        rows.write(*entries)
        answer = client.get(path, headers={"If-None-Match": ", ".join(tags)})
        assert answer.status_code == 200
        tags.append(answer.headers["ETag"])
    assert client.get(path, headers={"If-None-Match": tags[-1]}).status_code == 304
