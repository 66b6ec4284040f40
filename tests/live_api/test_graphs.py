"""Publishing and reading graphs over HTTP."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from foundation.ids import new_id
from foundation.settings import Limits
from tests.live_api.conftest import ClientFor

MALFORMED = Path(__file__).parent.parent / "data" / "malformed"


def document(name: str = "digest", value: object = 1, **metadata: object) -> dict[str, Any]:
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": name, **metadata},
        "nodes": {"a": {"type": "data.transform", "with": {"value": value}}},
    }


def publish(client: httpx.Client, *given: object, **metadata: object) -> httpx.Response:
    return client.post("/api/v1/graphs", json=document(*given, **metadata))  # type: ignore[arg-type]


def post_text(client: httpx.Client, text: str | bytes, media_type: str) -> httpx.Response:
    return client.post("/api/v1/graphs", content=text, headers={"Content-Type": media_type})


def test_publish_and_read(client: httpx.Client) -> None:
    given = document(description="Of quakes", labels={"team": "geo"})
    created = client.post("/api/v1/graphs", json=given)
    assert created.status_code == 201
    graph = created.json()
    assert set(graph) == {
        "graph_id", "name", "version", "fingerprint", "description", "labels", "created_at",
        "updated_at", "paused",
    }  # fmt: skip
    assert (graph["name"], graph["version"], graph["labels"]) == ("digest", 1, {"team": "geo"})
    assert created.headers["location"] == f"/api/v1/graphs/{graph['graph_id']}"
    by_id = client.get(created.headers["location"])
    assert by_id.status_code == 200
    assert by_id.json() == {**graph, "document": given}
    assert client.get("/api/v1/graphs/digest").json() == by_id.json()


def test_unchanged_and_changed(client: httpx.Client) -> None:
    first = publish(client)
    again = publish(client)
    assert again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    changed = publish(client, "digest", 2)
    assert (changed.status_code, changed.json()["version"]) == (201, 2)
    back = publish(client)
    assert (back.status_code, back.json()["version"]) == (200, 1)


@pytest.mark.parametrize(
    "media_type",
    ["application/yaml", "text/yaml", "application/x-yaml", "Application/YAML; charset=utf-8"],
)
def test_yaml_is_the_same_document(client: httpx.Client, media_type: str) -> None:
    first = publish(client)
    again = post_text(client, yaml.safe_dump(document()), media_type)
    assert (again.status_code, again.json()) == (200, first.json())


def test_formatting_is_not_a_change(client: httpx.Client) -> None:
    given: dict[str, Any] = {**document(value=2), "params": {"type": "object"}}
    first = client.post("/api/v1/graphs", json=given)
    reordered = json.dumps(dict(reversed(given.items())), indent=3).replace(": 2", ": 2.0")
    again = post_text(client, reordered, "application/json")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["fingerprint"] == first.json()["fingerprint"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_media_types(client: httpx.Client, media_type: str) -> None:
    answer = post_text(client, json.dumps(document()), media_type)
    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_media_type"
    assert "application/yaml" in answer.json()["hint"]


def test_every_fault_in_one_answer(client: httpx.Client) -> None:
    given = document("Not A Name")
    given["nodes"]["b"] = {"type": "no.such", "needs": ["nobody"]}
    given["surprise"] = 1
    answer = client.post("/api/v1/graphs", json=given)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    pointers = {fault["pointer"] for fault in answer.json()["errors"]}
    assert {"/metadata/name", "/nodes/b/type", "/nodes/b/needs/0", "/surprise"} <= pointers
    assert all(set(e) == {"pointer", "code", "message", "hint"} for e in answer.json()["errors"])
    assert client.get("/api/v1/graphs").json()["items"] == []


def test_malformed_documents(client: httpx.Client) -> None:
    """Each one's faults, as the ``.json`` beside it lists them, come in one answer."""
    sources = sorted(MALFORMED.glob("*.yaml"))
    assert len(sources) >= 10
    for source in sources:
        answer = post_text(client, source.read_bytes(), "application/yaml")
        assert answer.status_code == 422, source.name
        found = [[fault["pointer"], fault["code"]] for fault in answer.json()["errors"]]
        expected = json.loads(source.with_suffix(".json").read_text())
        assert sorted(found) == sorted(expected), source.name


@pytest.mark.parametrize("text", ["", "{", "[]", "a: [", "\x00", "null", '{"a":1}{"b":2}'])
@pytest.mark.parametrize("media_type", ["application/json", "application/yaml"])
def test_what_is_no_document(client: httpx.Client, text: str, media_type: str) -> None:
    answer = post_text(client, text, media_type)
    assert answer.status_code == 422
    assert answer.json()["errors"]


def test_bytes_that_are_no_text(client: httpx.Client) -> None:
    assert post_text(client, b"\xff\xfe\x00", "application/json").status_code == 422


def test_validate_stores_nothing(client: httpx.Client) -> None:
    given = document(value=1)
    given["nodes"]["b"] = {"type": "work.sleep", "with": {"seconds": 1}, "needs": ["a"]}
    found = client.post("/api/v1/graphs/validate", json=given)
    assert found.status_code == 200
    published = client.post("/api/v1/graphs", json=given).json()
    assert found.json() == {
        "valid": True,
        "name": "digest",
        "fingerprint": published["fingerprint"],
        "nodes": ["a", "b"],
        "node_types": {"data.transform": 1, "work.sleep": 1},
    }
    other = document("other")
    text = yaml.safe_dump(other)
    headers = {"Content-Type": "application/yaml"}
    answer = client.post("/api/v1/graphs/validate", content=text, headers=headers)
    assert answer.json()["name"] == "other"
    assert [each["name"] for each in client.get("/api/v1/graphs").json()["items"]] == ["digest"]


def test_validate_says_what_publishing_would(client: httpx.Client) -> None:
    for source in sorted(MALFORMED.glob("*.yaml")):
        headers = {"Content-Type": "application/yaml"}
        text = source.read_bytes()
        found = client.post("/api/v1/graphs/validate", content=text, headers=headers)
        refused = client.post("/api/v1/graphs", content=text, headers=headers)
        assert found.status_code == refused.status_code == 422
        assert found.json()["errors"] == refused.json()["errors"], source.name
    other = client.post("/api/v1/graphs/validate", content="{}", headers={"Content-Type": "x/y"})
    assert other.status_code == 415


def test_who_operates_may_pause_and_not_publish(client_for: ClientFor) -> None:
    publish(client_for())
    operator = client_for(scopes=("graphs:read", "runs:write"))
    assert operator.post("/api/v1/graphs/digest/pause").json()["paused"] is True
    assert operator.post("/api/v1/graphs/digest/resume").json()["paused"] is False
    author = client_for(scopes=("graphs:read", "graphs:write"))
    for what in ("pause", "resume"):
        assert author.post(f"/api/v1/graphs/digest/{what}").status_code == 403
    assert publish(operator).status_code == 403
    assert operator.delete("/api/v1/graphs/digest").status_code == 403


def test_identical_posts_at_once(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(publish, [client] * 8))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert {answer.json()["version"] for answer in answers} == {1}


def test_different_posts_at_once(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(publish, [client] * 8, ["digest"] * 8, range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8
    assert sorted(answer.json()["version"] for answer in answers) == list(range(1, 9))


def test_pages(client: httpx.Client) -> None:
    for n in range(5):
        assert publish(client, f"graph-{n}").status_code == 201
    names: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        page = client.get("/api/v1/graphs", params=query).json()
        assert set(page) == {"items", "next_cursor"}
        names += [graph["name"] for graph in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert names == [f"graph-{n}" for n in (4, 3, 2, 1, 0)]


def test_empty_list(client: httpx.Client) -> None:
    assert client.get("/api/v1/graphs").json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=201", "/limit"),
        ("limit=x", "/limit"),
        ("cursor=%00", "/cursor"),
    ],
)
def test_bad_query(client: httpx.Client, query: str, pointer: str) -> None:
    answer = client.get(f"/api/v1/graphs?{query}")
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_other_tenants_graph_is_like_an_unknown_one(client_for: ClientFor) -> None:
    ours, theirs = client_for("acme"), client_for("other")
    graph_id = publish(ours).json()["graph_id"]
    unknown = new_id()

    def masked(path: str, name: str) -> dict[str, Any]:
        answer = theirs.get(f"{path}/{name}")
        assert answer.status_code == 404
        problem = answer.json()
        del problem["request_id"]
        return json.loads(json.dumps(problem).replace(name, "<graph>"))

    assert masked("/api/v1/graphs", graph_id) == masked("/api/v1/graphs", unknown)
    assert masked("/api/v1/graphs", "digest") == masked("/api/v1/graphs", "nothing")
    assert theirs.get("/api/v1/graphs").json()["items"] == []


@pytest.mark.parametrize("name", ["%00", "..%2F..", "a" * 3000, "%F0%9F%92%A9", "' OR 1=1 --"])
def test_odd_names_are_not_found(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/api/v1/graphs/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


class TestSmallLimits:
    """An installation that allows little."""

    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(max_document_bytes=70_000, max_params_bytes=1, max_nodes=2)

    def test_body_that_says_it_is_too_long(self, client: httpx.Client) -> None:
        answer = post_text(client, b" " * 200_000, "application/json")
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "too_large"

    def test_body_that_turns_out_too_long(self, client: httpx.Client) -> None:
        answer = client.post(
            "/api/v1/graphs",
            content=(b" " * 10_000 for _ in range(20)),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"

    def test_reading_stops_at_the_limit(self, client: httpx.Client) -> None:
        sent = 0

        def endless() -> Any:
            nonlocal sent
            while True:
                sent += 1
                yield b" " * 10_000

        try:
            answer = client.post(
                "/api/v1/graphs",
                content=endless(),
                headers={"Content-Type": "application/json"},
            )
            assert answer.status_code == 413
        except httpx.WriteError:
            pass  # the server has hung up, which stops a client that does not listen
        assert sent < 5_000

    def test_document_within_the_limit(self, client: httpx.Client) -> None:
        assert publish(client, "digest", "x" * 60_000).status_code == 201

    def test_too_many_nodes(self, client: httpx.Client) -> None:
        given = document()
        given["nodes"] = {f"n{n}": given["nodes"]["a"] for n in range(3)}
        assert client.post("/api/v1/graphs", json=given).status_code in {413, 422}
