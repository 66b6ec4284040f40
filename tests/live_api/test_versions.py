"""Versions over HTTP: listed, read, rolled back to, compared; and graphs deleted."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonpatch
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from foundation.database import connect
from foundation.ids import new_id
from foundation.settings import Settings
from graph_defs.diff import diff
from graph_defs.json_values import JsonObject
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import document, publish
from tests.live_api.test_problems import check
from tests.live_api.test_runs import environment, pointers, start

__all__ = ["environment"]

GRAPH = "/api/v1/graphs/digest"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | st.text(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(["nodes", "a", "b/~"]), JSON, max_size=3)


def hook(value: int) -> dict[str, Any]:
    return document(value=value) | {
        "triggers": {f"hook{value}": {"type": "webhook", "scheme": "none"}}
    }


@pytest.fixture
def three(client: httpx.Client) -> httpx.Client:
    """A client whose graph ``digest`` has three versions."""
    for value in (1, 2, 3):
        publish(client, "digest", value).raise_for_status()
    return client


def test_list_and_read(three: httpx.Client) -> None:
    listed = three.get(f"{GRAPH}/versions").json()
    assert [each["version"] for each in listed["items"]] == [3, 2, 1]
    assert listed["next_cursor"] is None
    assert set(listed["items"][0]) == {"version", "fingerprint", "author", "created_at"}
    one = three.get(f"{GRAPH}/versions/2").json()
    assert one["document"] == document(value=2)
    assert one["node_types"] == {"data.transform": 1}
    assert {name: one[name] for name in listed["items"][1]} == listed["items"][1]


def test_pages(three: httpx.Client) -> None:
    first = three.get(f"{GRAPH}/versions?limit=2").json()
    assert [each["version"] for each in first["items"]] == [3, 2]
    cursor = first["next_cursor"]
    second = three.get(f"{GRAPH}/versions", params={"limit": 2, "cursor": cursor}).json()
    assert [each["version"] for each in second["items"]] == [1]
    assert second["next_cursor"] is None


def test_roll_back(client: httpx.Client) -> None:
    for value in (1, 2):
        client.post("/api/v1/graphs", json=hook(value)).raise_for_status()
    back = client.post(f"{GRAPH}/rollback", json={"version": 1})
    assert (back.status_code, back.json()["version"]) == (200, 1)
    assert client.get(GRAPH).json()["document"] == hook(1)
    triggers = client.get(f"{GRAPH}/triggers").json()["items"]
    assert [trigger["name"] for trigger in triggers] == ["hook1"]
    run = client.get(start(client).headers["Location"]).json()
    assert run["version"] == 1
    assert client.post(f"{GRAPH}/rollback", json={"version": 1}).json() == back.json()
    assert publish(client, "digest", 9).json()["version"] == 3


def test_a_version_whose_node_type_is_gone(client: httpx.Client, settings: Settings) -> None:
    publish(client).raise_for_status()
    with connect(settings.database_url) as connection:
        connection.execute(
            "UPDATE graphwright.graph_versions"
            " SET document = replace(document, 'data.transform', 'data.gone')"
        )
    answer = client.post(f"{GRAPH}/rollback", json={"version": 1})
    assert pointers(answer) == ["/nodes/a/type"]


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, ["/version"]),
        ({"version": 0}, ["/version"]),
        ({"version": "x", "more": 1}, ["/more", "/version"]),
        ({"version": 2**31}, ["/version"]),
    ],
)
def test_bad_rollback(three: httpx.Client, body: dict[str, Any], faults: list[str]) -> None:
    assert sorted(pointers(three.post(f"{GRAPH}/rollback", json=body))) == faults


def test_unknown_versions(three: httpx.Client) -> None:
    check(three.get(f"{GRAPH}/versions/4"), 404, "not_found")
    check(three.post(f"{GRAPH}/rollback", json={"version": 4}), 404, "not_found")
    check(three.get(f"{GRAPH}/diff?from=1&to=9999999999"), 404, "not_found")
    check(three.get(f"{GRAPH}/diff?from=1"), 404, "not_found")  # there is no draft
    for number in ("0", "x", str(2**31)):
        check(three.get(f"{GRAPH}/versions/{number}"), 422, "invalid")
    faults = pointers(three.get(f"{GRAPH}/diff?from=0&to=published"))
    assert sorted(faults) == ["/from", "/to"]


def test_diff(client: httpx.Client) -> None:
    old, new = document(), document(value=2)
    old["nodes"]["gone"] = old["nodes"]["a"]
    new["nodes"]["b"] = {**old["nodes"]["a"], "needs": ["a"]}
    for each in (old, new):
        client.post("/api/v1/graphs", json=each).raise_for_status()
    found = client.get(f"{GRAPH}/diff?from=1&to=2").json()
    assert (found["from"], found["to"]) == ("1", "2")
    assert found["nodes"] == {"added": ["b"], "removed": ["gone"], "changed": ["a"]}
    assert jsonpatch.apply_patch(old, found["patch"]) == new
    assert client.get(f"{GRAPH}/diff?from=2&to=2").json()["patch"] == []
    client.put(f"{GRAPH}/draft", json=old).raise_for_status()
    back = client.get(f"{GRAPH}/diff").json()
    assert (back["from"], back["to"]) == ("2", "draft")
    assert jsonpatch.apply_patch(new, back["patch"]) == old


@given(OBJECTS, OBJECTS)
@hypothesis_settings(max_examples=300)
def test_a_patch_makes_the_second_of_the_first(old: JsonObject, new: JsonObject) -> None:
    made = jsonpatch.apply_patch(old, diff(old, new).patch)
    assert json.dumps(made, sort_keys=True) == json.dumps(new, sort_keys=True)


def test_long_arrays_are_replaced() -> None:
    old, new = list(range(2_000)), list(range(2_000, 0, -1))
    (operation,) = diff({"a": [*old]}, {"a": [*new]}).patch
    assert operation == {"op": "replace", "path": "/a", "value": new}
    (operation,) = diff({"a": [[*old], 1]}, {"a": [[*old], 2]}).patch
    assert operation["path"] == "/a"


def test_other_tenants_versions(three: httpx.Client, client_for: ClientFor) -> None:
    graph_id = three.get(GRAPH).json()["graph_id"]
    others = client_for("other")
    for graph in (graph_id, "digest", new_id()):
        path = f"/api/v1/graphs/{graph}"
        for answer in (
            others.get(f"{path}/versions"),
            others.get(f"{path}/versions/1"),
            others.get(f"{path}/diff?from=1&to=2"),
            others.post(f"{path}/rollback", json={"version": 1}),
            others.delete(path),
        ):
            check(answer, 404, "not_found")
    assert three.get(GRAPH).json()["version"] == 3


def test_delete(client: httpx.Client, settings: Settings) -> None:
    graph_id = client.post("/api/v1/graphs", json=hook(1)).json()["graph_id"]
    client.put(f"{GRAPH}/draft", json=hook(2)).raise_for_status()
    run_id = start(client).json()["run_id"]
    refused = client.delete(GRAPH)
    check(refused, 409, "conflict")
    assert refused.json()["run_id"] == run_id
    client.post(f"/api/v1/runs/{run_id}/cancel").raise_for_status()
    assert client.delete(GRAPH).status_code == 204
    for path in (GRAPH, f"/api/v1/graphs/{graph_id}"):
        for answer in (
            client.get(path),
            client.get(f"{path}/draft"),
            client.get(f"{path}/versions"),
            client.get(f"{path}/triggers"),
            client.delete(path),
            client.post(f"{path}/runs"),
            client.post(f"{path}/pause"),
        ):
            check(answer, 404, "not_found")
    check(client.post(f"/api/v1/runs/{run_id}/rerun"), 404, "not_found")
    assert client.get("/api/v1/graphs").json()["items"] == []
    run = client.get(f"/api/v1/runs/{run_id}").json()
    assert (run["graph"], run["graph_id"], run["status"]) == ("digest", graph_id, "cancelled")
    assert [each["run_id"] for each in client.get("/api/v1/runs").json()["items"]] == [run_id]
    with connect(settings.database_url) as connection:
        for table in ("triggers", "webhook_addresses", "recent_graphs", "graph_drafts"):
            left = connection.execute(f"SELECT FROM graphwright.{table}").fetchall()  # type: ignore[arg-type]
            assert left == [], table
    again = publish(client)
    assert (again.status_code, again.json()["version"]) == (201, 1)
    assert again.json()["graph_id"] != graph_id
    assert client.delete(GRAPH).status_code == 204


def test_publishing_and_deleting_at_once(client: httpx.Client) -> None:
    """Whatever comes first, what is there afterwards is a whole graph or none."""
    for turn in range(10):
        publish(client, "digest", turn).raise_for_status()
        with ThreadPoolExecutor(2) as threads:
            published = threads.submit(publish, client, "digest", f"new {turn}")
            deleted = threads.submit(client.delete, GRAPH)
        assert deleted.result().status_code == 204
        assert published.result().status_code == 201
        found = client.get(GRAPH)
        if found.status_code == 404:
            assert published.result().json()["version"] > 1
        else:
            assert found.json()["version"] == 1
            assert found.json()["graph_id"] == published.result().json()["graph_id"]
            assert client.delete(GRAPH).status_code == 204
