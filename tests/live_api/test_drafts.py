"""Drafts over HTTP: stored with their faults, read, published, thrown away."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from foundation.database import connect
from foundation.ids import new_id
from foundation.settings import Settings
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import document, publish
from tests.live_api.test_problems import check
from tests.live_api.test_runs import environment, pointers, start

__all__ = ["environment"]

GRAPH = "/api/v1/graphs/digest"
DRAFT = f"{GRAPH}/draft"


def put(client: httpx.Client, value: object = 2, **headers: str) -> httpx.Response:
    return client.put(DRAFT, json=document(value=value), headers=headers)


def test_put_read_and_publish(client: httpx.Client) -> None:
    graph = publish(client).json()
    made = put(client)
    assert (made.status_code, made.json()["errors"]) == (201, [])
    draft = client.get(DRAFT).json()
    assert draft["document"] == document(value=2)
    assert {**draft, "errors": []} == {**made.json(), "document": draft["document"]}
    assert (draft["graph_id"], draft["published_version"]) == (graph["graph_id"], 1)
    assert client.get(GRAPH).json()["document"] == document()
    replaced = put(client, 3)
    assert (replaced.status_code, replaced.json()["created_at"]) == (200, draft["created_at"])
    published = client.post(f"{GRAPH}/publish")
    assert (published.status_code, published.json()["version"]) == (201, 2)
    assert client.get(GRAPH).json()["document"] == document(value=3)
    check(client.get(DRAFT), 404, "not_found")
    check(client.post(f"{GRAPH}/publish"), 404, "not_found")


def test_a_draft_of_an_earlier_version(client: httpx.Client) -> None:
    for value in (1, 2):
        publish(client, "digest", value)
    put(client, 1)
    published = client.post(f"{GRAPH}/publish")
    assert (published.status_code, published.json()["version"]) == (200, 1)


def test_a_graph_that_is_a_draft_alone(client: httpx.Client) -> None:
    made = client.put(
        DRAFT, content=b"metadata: {name: digest}", headers={"Content-Type": "text/yaml"}
    )
    assert made.status_code == 201
    assert made.json()["published_version"] == 0
    assert {"/apiVersion", "/kind", "/nodes"} <= {e["pointer"] for e in made.json()["errors"]}
    graph = client.get(GRAPH).json()
    assert (graph["version"], graph["fingerprint"], graph["document"]) == (0, None, None)
    assert [each["name"] for each in client.get("/api/v1/graphs").json()["items"]] == ["digest"]
    assert client.get(f"{GRAPH}/versions").json()["items"] == []
    check(start(client), 409, "not_published")
    check(client.get(f"{GRAPH}/diff"), 409, "not_published")
    by_id = f"/api/v1/graphs/{graph['graph_id']}"
    assert "/nodes" in pointers(client.post(f"{by_id}/publish"))
    assert client.put(f"{by_id}/draft", json=document()).status_code == 200
    published = client.post(f"{by_id}/publish")
    assert (published.status_code, published.json()["version"]) == (201, 1)
    assert start(client).status_code == 202


def test_a_graph_that_was_never_published_is_deleted(client: httpx.Client) -> None:
    put(client)
    assert client.delete(GRAPH).status_code == 204
    check(client.get(DRAFT), 404, "not_found")
    assert put(client).status_code == 201


def test_a_draft_is_of_its_graph(client: httpx.Client) -> None:
    made = client.put("/api/v1/graphs/other/draft", json=document("digest"))
    assert [fault["code"] for fault in made.json()["errors"]] == ["other_name"]
    answer = client.post("/api/v1/graphs/other/publish")
    assert pointers(answer) == ["/metadata/name"]
    assert client.get("/api/v1/graphs/other").json()["version"] == 0


@pytest.mark.parametrize(
    ("name", "fault"), [("Not%20A%20Name", "/graph"), ("%00", "/graph"), ("a" * 300, "/graph")]
)
def test_a_name_that_no_graph_may_have(client: httpx.Client, name: str, fault: str) -> None:
    assert pointers(client.put(f"/api/v1/graphs/{name}/draft", json=document())) == [fault]


@pytest.mark.parametrize("text", ["", "{", "[]", "a: [", "\x00", "null"])
def test_what_can_be_no_draft(client: httpx.Client, text: str) -> None:
    answer = client.put(DRAFT, content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    check(client.get(GRAPH), 404, "not_found")
    answer = client.put(DRAFT, content=text, headers={"Content-Type": "text/plain"})
    check(answer, 415, "unsupported_media_type")


def test_throw_away(client: httpx.Client) -> None:
    publish(client)
    put(client)
    assert client.delete(DRAFT).status_code == 204
    check(client.delete(DRAFT), 404, "not_found")
    assert client.get(GRAPH).json()["version"] == 1


def test_a_draft_with_an_etag(client: httpx.Client) -> None:
    check(put(client, **{"If-Match": "*"}), 412, "precondition_failed")
    check(client.get(GRAPH), 404, "not_found")
    first = put(client, **{"If-None-Match": "*"}).headers["ETag"]
    check(put(client, **{"If-None-Match": "*"}), 412, "precondition_failed")
    read = client.get(DRAFT)
    assert read.headers["ETag"] == first
    unchanged = client.get(DRAFT, headers={"If-None-Match": first})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    second = put(client, 3, **{"If-Match": first}).headers["ETag"]
    for answer in (
        put(client, 4, **{"If-Match": first}),
        client.delete(DRAFT, headers={"If-Match": first}),
        client.post(f"{GRAPH}/publish", headers={"If-Match": first}),
    ):
        check(answer, 412, "precondition_failed")
    publish(client, "digest", 5)
    stale = client.post(f"{GRAPH}/publish", headers={"If-Match": second})
    check(stale, 412, "precondition_failed")  # it would undo what was published beside it
    third = client.get(DRAFT).headers["ETag"]
    assert client.post(f"{GRAPH}/publish", headers={"If-Match": third}).status_code == 201
    check(client.post(f"{GRAPH}/publish", headers={"If-Match": third}), 412, "precondition_failed")
    check(client.delete(DRAFT, headers={"If-Match": third}), 412, "precondition_failed")
    check(client.post("/api/v1/graphs/no/publish", headers={"If-Match": third}), 404, "not_found")


def test_publishing_twice_at_once(client: httpx.Client) -> None:
    for value in range(5):
        tag = put(client, value).headers["ETag"]

        def send(_: int, tag: str = tag) -> int:
            return client.post(f"{GRAPH}/publish", headers={"If-Match": tag}).status_code

        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(send, range(4))) == [201, 412, 412, 412]


def test_changing_a_draft_while_it_is_published(client: httpx.Client) -> None:
    """Whichever comes first, no change is lost: it is published, or it still is the draft."""
    for value in range(0, 20, 2):
        put(client, value)
        with ThreadPoolExecutor(2) as threads:
            published = threads.submit(client.post, f"{GRAPH}/publish")
            changed = threads.submit(put, client, value + 1)
        assert changed.result().status_code in {200, 201}
        if published.result().status_code == 409:
            assert published.result().json()["code"] == "conflict"
        left = client.get(DRAFT)
        last: Any = left if left.status_code == 200 else client.get(GRAPH)
        assert last.json()["document"] == document(value=value + 1)


def test_other_tenants_drafts(client: httpx.Client, client_for: ClientFor) -> None:
    graph_id = put(client).json()["graph_id"]
    others = client_for("other")
    for graph in (graph_id, new_id()):
        path = f"/api/v1/graphs/{graph}"
        for answer in (
            others.get(f"{path}/draft"),
            others.put(f"{path}/draft", json=document()),
            others.delete(f"{path}/draft"),
            others.post(f"{path}/publish"),
        ):
            check(answer, 404, "not_found")
    check(others.get(DRAFT), 404, "not_found")
    assert put(others, 9).status_code == 201  # a graph of their own, of the same name
    assert client.get(DRAFT).json()["document"] == document(value=2)


def test_the_quota_of_graphs_holds_for_drafts(client: httpx.Client, settings: Settings) -> None:
    publish(client, "first")
    with connect(settings.database_url) as connection:
        connection.execute("UPDATE graphwright.tenants SET max_graphs = 1 WHERE tenant = 'acme'")
    answer = put(client)
    assert (answer.status_code, answer.json()["quota"]) == (429, "max_graphs")
    assert client.delete("/api/v1/graphs/first").status_code == 204
    assert put(client).status_code == 201  # what is deleted does not count
