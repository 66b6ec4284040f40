"""Starting, listing, reading and cancelling runs over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from foundation.database import connect
from foundation.ids import TenantId, new_id
from foundation.settings import Settings
from graphwright.home import dagster_environment
from tests.dynamic_jobs.run_rows import RunRows
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import document


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster loads a run's job by its code pointer, which finds the database like any process."""
    for name, text in dagster_environment(settings).items():
        monkeypatch.setenv(name, text)


WAITING = """
SELECT pid FROM pg_locks WHERE NOT granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def publish(client: httpx.Client, name: str = "digest") -> dict[str, Any]:
    given = document(name)
    given["params"] = {
        "type": "object",
        "properties": {"n": {"type": "integer", "default": 3}},
        "additionalProperties": False,
    }
    answer = client.post("/api/v1/graphs", json=given)
    answer.raise_for_status()
    return answer.json()


def start(client: httpx.Client, graph: str = "digest", **body: Any) -> httpx.Response:
    return client.post(f"/api/v1/graphs/{graph}/runs", json=body)


def pointers(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [fault["pointer"] for fault in answer.json()["errors"]]


def test_start_and_read(client: httpx.Client) -> None:
    graph = publish(client)
    started = start(client, params={"n": 5}, priority=7)
    assert started.status_code == 202
    accepted = started.json()
    path = f"/api/v1/runs/{accepted['run_id']}"
    assert started.headers["Location"] == path
    assert accepted == {
        "run_id": accepted["run_id"],
        "status": "queued",
        "links": {
            "self": path,
            "events": f"{path}/events",
            "websocket": f"{path}/ws",
            "cancel": f"{path}/cancel",
        },
    }
    run = client.get(path).json()
    assert datetime.now(UTC) - datetime.fromisoformat(run.pop("created_at")) < timedelta(minutes=1)
    assert run == {
        **accepted,
        "graph": "digest",
        "graph_id": graph["graph_id"],
        "version": 1,
        "trigger": {"type": "rest"},
        "author": "ann",
        "parent_run_id": None,
        "started_at": None,
        "ended_at": None,
        "params": {"n": 5},
        "priority": 7,
        "not_before": None,
        "live": True,
        "trace_id": accepted["run_id"].replace("-", ""),
        "outputs": None,
        "error": None,
        "nodes": {
            "a": {
                "status": "pending",
                "attempt": 0,
                "started_at": None,
                "ended_at": None,
                "error": None,
            }
        },
    }
    (event,) = client.get(f"{path}/events").json()["items"]
    assert event["type"] == "run.queued"


def test_a_body_is_not_needed(client: httpx.Client) -> None:
    graph = publish(client)
    for answer in (
        client.post("/api/v1/graphs/digest/runs"),
        start(client, graph=graph["graph_id"]),
        start(client, params={}, live=False),
    ):
        assert answer.status_code == 202, answer.text
        run = client.get(answer.headers["Location"]).json()
        assert run["params"] == {"n": 3}


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({"parms": {}}, ["/parms"]),
        ({"params": [1], "priority": "high"}, ["/params", "/priority"]),
        ({"priority": 5000}, ["/priority"]),
        ({"live": "no"}, ["/live"]),
        ({"not_before": "2030-01-01T00:00:00"}, ["/not_before"]),
        ({"params": {"n": "x", "m": 1}}, ["/params/m", "/params/n"]),
    ],
)
def test_a_bad_body_gets_every_fault(
    client: httpx.Client, body: dict[str, Any], faults: list[str]
) -> None:
    publish(client)
    assert sorted(pointers(start(client, **body))) == faults
    assert client.get("/api/v1/runs").json() == {"items": [], "next_cursor": None}


def test_not_before(client: httpx.Client) -> None:
    publish(client)
    answer = start(client, not_before="2090-01-01T00:00:00+02:00")
    run = client.get(answer.headers["Location"]).json()
    assert run["not_before"] == "2089-12-31T22:00:00Z"


def test_the_version_that_is_published_now_runs(client: httpx.Client) -> None:
    publish(client)
    runs = [start(client)]
    client.post("/api/v1/graphs", json=document("digest")).raise_for_status()  # takes no params
    runs += [start(client)]
    assert pointers(start(client, params={"n": 1})) == ["/params/n"]
    publish(client)
    runs += [start(client, params={"n": 1})]
    versions = [client.get(run.headers["Location"]).json()["version"] for run in runs]
    assert versions == [1, 2, 1]


def test_a_run_that_may_or_may_not_be_there(client: httpx.Client, settings: Settings) -> None:
    publish(client)
    start(client)
    with (
        ThreadPoolExecutor(1) as threads,
        connect(settings.database_url) as other,
        other.transaction(),
    ):
        other.execute("LOCK TABLE graphwright.run_queue IN ACCESS EXCLUSIVE MODE")
        asked = threads.submit(start, client)
        while not (rows := other.execute(WAITING).fetchall()):
            assert not asked.done()
        other.execute("SELECT pg_terminate_backend(%s)", [rows[0]["pid"]])
        answer = asked.result()
    assert answer.status_code == 503, "clients try again, with the key of their request"
    assert answer.headers["Retry-After"]
    problem = answer.json()
    assert problem["code"] == "in_doubt"
    assert problem["run_id"] in problem["hint"]
    assert client.get(f"/api/v1/runs/{problem['run_id']}").status_code == 404
    assert len(client.get("/api/v1/runs").json()["items"]) == 1
    assert start(client).status_code == 202


def test_lists(client: httpx.Client) -> None:
    graph = publish(client)
    publish(client, "weekly")
    runs = [start(client).json()["run_id"] for _ in range(3)]
    other = start(client, graph="weekly").json()["run_id"]

    def listed(**query: Any) -> tuple[list[str], str | None]:
        answer = client.get("/api/v1/runs", params=query)
        answer.raise_for_status()
        page = answer.json()
        return [run["run_id"] for run in page["items"]], page["next_cursor"]

    newest_first = [other, *reversed(runs)]
    assert listed() == (newest_first, None)
    assert listed(graph="digest") == listed(graph=graph["graph_id"]) == (newest_first[1:], None)
    assert listed(status="queued", graph="weekly") == ([other], None)
    assert listed(status="failed") == ([], None)
    first, cursor = listed(limit=3)
    assert first == newest_first[:3]
    assert cursor is not None
    assert listed(limit=3, cursor=cursor) == (newest_first[3:], None)


def test_bad_filters(client: httpx.Client) -> None:
    assert pointers(client.get("/api/v1/runs?status=done")) == ["/status/0"]
    assert pointers(client.get("/api/v1/runs?limit=0")) == ["/limit"]
    assert pointers(client.get("/api/v1/runs?cursor=x")) == ["/cursor"]
    assert client.get("/api/v1/runs?graph=unknown").status_code == 404


def test_cancel(client: httpx.Client) -> None:
    publish(client)
    links = start(client).json()["links"]
    answer = client.post(links["cancel"])
    assert answer.status_code == 202
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["links"] == links
    run = client.get(links["self"]).json()
    assert run["status"] == run["nodes"]["a"]["status"] == "cancelled"
    assert run["ended_at"] is not None
    page = client.get(links["events"]).json()
    assert [event["type"] for event in page["items"]] == ["run.queued", "run.cancelled"]
    assert page["ended"]
    assert client.post(links["cancel"]).status_code == 409


def test_a_finished_run(client: httpx.Client, settings: Settings) -> None:
    rows = RunRows(settings.database_url)
    rows.run_whole({"count": 2})
    run = client.get(f"/api/v1/runs/{rows.run_id}").json()
    assert (run["status"], run["outputs"]) == ("succeeded", {"count": 2})
    assert run["nodes"]["b"] == {
        "status": "succeeded",
        "attempt": 1,
        "started_at": "2023-11-14T22:13:20.250000Z",
        "ended_at": "2023-11-14T22:13:20.250000Z",
        "error": None,
    }


def test_a_nodes_output(client: httpx.Client, settings: Settings) -> None:
    rows = RunRows(settings.database_url)
    path = f"/api/v1/runs/{rows.run_id}/nodes/a/output"
    assert client.get(path).status_code == 404
    with connect(settings.database_url) as connection:
        connection.execute(
            "INSERT INTO graphwright.node_outputs VALUES (%s, %s, 'a', %s)",
            [rows.tenant, rows.run_id, '[1e400,2.0,"é"]'],
        )
    answer = client.get(path)
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == '[1e400,2.0,"é"]'
    assert client.get(path.replace("/a/", "/%00/")).status_code == 404, "no name of a node"


ROUTES = [
    ("GET", "/api/v1/runs/{run_id}"),
    ("GET", "/api/v1/runs/{run_id}/events"),
    ("POST", "/api/v1/runs/{run_id}/cancel"),
    ("POST", "/api/v1/runs/{run_id}/pause"),
    ("POST", "/api/v1/runs/{run_id}/resume"),
    ("POST", "/api/v1/runs/{run_id}/rerun"),
    ("GET", "/api/v1/runs/{run_id}/nodes/a/output"),
]


@pytest.mark.parametrize(("method", "path"), [*ROUTES, ("POST", "/api/v1/graphs/digest/runs")])
def test_other_tenants_see_nothing(
    client_for: ClientFor, settings: Settings, method: str, path: str
) -> None:
    rows = RunRows(settings.database_url)
    rows.run_whole()
    with connect(settings.database_url) as connection:
        connection.execute("INSERT INTO graphwright.tenants VALUES ('other')")
    other = client_for("other")
    answer = other.request(method, path.format(run_id=rows.run_id))
    assert answer.status_code == 404
    if "{run_id}" in path:
        identity = new_id()
        unknown = other.request(method, path.format(run_id=identity))
        told = answer.json() | {"request_id": unknown.json()["request_id"], "run_id": identity}
        assert told == unknown.json(), "which of the two it is must not show"
    assert other.get("/api/v1/runs").json()["items"] == []


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_what_is_no_run_id_is_not_found(client: httpx.Client, method: str, path: str) -> None:
    for run_id in ("x", "%00", "0" * 32):
        assert client.request(method, path.format(run_id=run_id)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [*ROUTES, ("GET", "/api/v1/runs"), ("POST", "/api/v1/graphs/digest/runs")]
)
def test_every_route_asks_for_its_scope(
    client_for: ClientFor, anonymous: httpx.Client, method: str, path: str
) -> None:
    path = path.format(run_id=new_id())
    assert anonymous.request(method, path).status_code == 401
    wrong = ("graphs:read", "graphs:write", "runs:write" if method == "GET" else "runs:read")
    assert client_for(scopes=wrong).request(method, path).status_code == 403
    assert client_for().request(method, path).status_code in (200, 404)


def test_another_tenants_graph_is_no_filter(client_for: ClientFor, settings: Settings) -> None:
    rows = RunRows(settings.database_url, tenant=TenantId("other"))
    answer = client_for().get("/api/v1/runs", params={"graph": rows.graph_id})
    assert answer.status_code == 404
