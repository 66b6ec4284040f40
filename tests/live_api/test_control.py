"""Pausing, resuming and repeating runs over HTTP, and the runs that failed by their errors."""

import json
from typing import Any

import httpx
import pytest

from foundation.database import connect
from foundation.ids import TenantId, new_id
from foundation.settings import Settings
from tests.dynamic_jobs.run_rows import RunRows
from tests.live_api.conftest import ClientFor
from tests.live_api.test_runs import environment, pointers, publish, start

__all__ = ["environment"]


def control(
    client: httpx.Client, run_id: str, what: str, body: dict[str, Any] | None = None
) -> httpx.Response:
    return client.post(f"/api/v1/runs/{run_id}/{what}", json=body)


def queued(client: httpx.Client) -> str:
    publish(client)
    return start(client, params={"n": 5}, priority=3).json()["run_id"]


def test_pause_and_resume(client: httpx.Client) -> None:
    run_id = queued(client)
    for _ in range(2):
        paused = control(client, run_id, "pause")
        assert (paused.status_code, paused.json()["status"]) == (202, "paused")
    assert client.get("/api/v1/runs?status=paused").json()["items"][0]["run_id"] == run_id
    for _ in range(2):
        resumed = control(client, run_id, "resume")
        assert (resumed.status_code, resumed.json()["status"]) == (202, "queued")
    events = client.get(f"/api/v1/runs/{run_id}/events").json()["items"]
    assert [event["type"] for event in events] == ["run.queued", "run.paused", "run.resumed"]
    control(client, run_id, "pause")
    assert control(client, run_id, "cancel").json()["status"] == "cancelled"
    for what in ("pause", "resume", "cancel"):
        assert control(client, run_id, what).json()["code"] == "conflict"


def test_a_graph_is_paused(client: httpx.Client) -> None:
    graph = publish(client)
    assert graph["paused"] is False
    for _ in range(2):
        paused = client.post("/api/v1/graphs/digest/pause")
        assert (paused.status_code, paused.json()["paused"]) == (202, True)
    run_id = start(client).json()["run_id"]
    assert client.get(f"/api/v1/runs/{run_id}").json()["status"] == "queued"
    assert client.get("/api/v1/graphs/digest").json()["paused"] is True
    assert publish(client)["paused"] is True, "publishing resumes nothing"
    resumed = client.post(f"/api/v1/graphs/{graph['graph_id']}/resume")
    assert (resumed.status_code, resumed.json()["paused"]) == (202, False)


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_a_graph_is_its_tenants(client_for: ClientFor, anonymous: httpx.Client, what: str) -> None:
    publish(client_for())
    path = f"/api/v1/graphs/digest/{what}"
    assert client_for("other").post(path).status_code == 404
    assert anonymous.post(path).status_code == 401
    assert client_for(scopes=("graphs:read", "graphs:write")).post(path).status_code == 403


def test_rerun(client: httpx.Client) -> None:
    run_id = queued(client)
    assert control(client, run_id, "rerun").json()["code"] == "conflict"
    control(client, run_id, "cancel")
    again = control(client, run_id, "rerun")
    assert (again.status_code, again.json()["status"]) == (202, "queued")
    run = client.get(again.headers["Location"]).json()
    assert (run["parent_run_id"], run["params"], run["priority"]) == (run_id, {"n": 5}, 3)
    edited = control(client, run_id, "rerun", {"from": "failed", "params": {}})
    run = client.get(edited.headers["Location"]).json()
    assert run["params"] == {"n": 3}, "given params are instead of all of the parent's"


def test_a_rerun_that_cannot_be(client: httpx.Client) -> None:
    run_id = queued(client)
    control(client, run_id, "cancel")
    for body, pointer in (
        ({"from": "b"}, "/from"),
        ({"from": 1}, "/from"),
        ({"begin": "start"}, "/begin"),
        ({"params": {"n": "x"}}, "/params/n"),
    ):
        assert pointers(control(client, run_id, "rerun", body)) == [pointer]
    refused = control(client, run_id, "rerun", {"from": "b" * 100_000})
    assert (pointers(refused), len(refused.content) < 1_000) == (["/from"], True)


def test_a_rerun_has_an_idempotency_key(client: httpx.Client) -> None:
    run_id = queued(client)
    control(client, run_id, "cancel")
    path, headers = f"/api/v1/runs/{run_id}/rerun", {"Idempotency-Key": new_id()}
    first, second = (client.post(path, headers=headers) for _ in range(2))
    assert first.json()["run_id"] == second.json()["run_id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    other = client.post(path, headers=headers, json={"from": "a"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


def test_dead_runs_are_listed_with_their_cause(client: httpx.Client, settings: Settings) -> None:
    error = {"code": "worker_lost", "message": "6 workers in a row were lost", "hint": "Look."}
    for tenant in ("acme", "other"):
        for name in ("one", "two"):
            lost = RunRows(settings.database_url, graph=name, tenant=TenantId(tenant))
            with connect(settings.database_url) as connection:
                connection.execute(
                    "UPDATE graphwright.runs SET status = 'failed', error = %s WHERE run_id = %s",
                    ('{"code": "timeout"}' if name == "two" else json.dumps(error), lost.run_id),
                )
    failed = client.get("/api/v1/runs?status=failed").json()["items"]
    assert [run["error"]["code"] for run in failed] == ["timeout", "worker_lost"]
    (found,) = client.get("/api/v1/runs?status=failed&error=worker_lost").json()["items"]
    assert found["error"] == error
    assert client.get("/api/v1/runs?error=timeout&graph=one").json()["items"] == []
    assert client.get("/api/v1/runs?error=http_5xx").json()["items"] == []
    assert pointers(client.get("/api/v1/runs", params={"error": "a\0"})) == ["/error"]
