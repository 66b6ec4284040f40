"""Stream tokens: one run's events, and nothing else."""

from typing import Any

import httpx
import pytest
from websockets.sync.client import connect as connect_socket

from foundation.ids import RunId, TenantId, new_id
from foundation.settings import Settings
from graphwright.home import dagster_environment
from live_api.identity import Principal, issue_stream_token, issue_token, signing_key
from tests.live_api.conftest import ClientFor
from tests.live_api.test_problems import check
from tests.live_api.test_routes import routes
from tests.live_api.test_runs import publish, start


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in dagster_environment(settings).items():
        monkeypatch.setenv(name, text)


def run(client: httpx.Client) -> str:
    publish(client)
    return start(client).json()["run_id"]


def token(client: httpx.Client, run_id: str) -> dict[str, Any]:
    answer = client.post(f"/api/v1/runs/{run_id}/stream-token")
    assert answer.status_code == 201, answer.text
    return answer.json()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_it_opens_the_events_of_its_run(
    client: httpx.Client, anonymous: httpx.Client, api_url: str
) -> None:
    run_id = run(client)
    made = token(client, run_id)
    path = f"/api/v1/runs/{run_id}/events"
    assert made["events"] == f"{path}?token={made['token']}"
    for answer in (
        anonymous.get(made["events"]),
        anonymous.get(path, headers=bearer(made["token"])),
    ):
        assert [event["type"] for event in answer.json()["items"]] == ["run.queued"]
    with connect_socket(api_url.replace("http", "ws", 1) + made["websocket"]) as socket:
        assert '"run.queued"' in str(socket.recv(60))


def test_it_is_good_for_nothing_else(client: httpx.Client, anonymous: httpx.Client) -> None:
    run_id = run(client)
    given = token(client, run_id)["token"]
    seen = 0
    for method, path in routes(anonymous):
        answer = anonymous.request(method, path, headers=bearer(given))
        check(answer, 403, "forbidden")
        seen += 1
    assert seen > 30
    for path in (f"/api/v1/runs/{run_id}", f"/api/v1/runs/{run_id}/cancel"):
        method = "POST" if path.endswith("cancel") else "GET"
        check(anonymous.request(method, path, headers=bearer(given)), 403, "forbidden")
        check(anonymous.request(method, path, params={"token": given}), 401, "unauthenticated")
    check(
        anonymous.post(f"/api/v1/runs/{run_id}/stream-token", headers=bearer(given)),
        403,
        "forbidden",
    )


def test_it_does_not_open_another_run(client: httpx.Client, anonymous: httpx.Client) -> None:
    given = token(client, run(client))["token"]
    other = start(client).json()["run_id"]
    answer = anonymous.get(f"/api/v1/runs/{other}/events", params={"token": given})
    check(answer, 403, "forbidden")


def test_an_access_token_is_no_part_of_an_address(
    client: httpx.Client, anonymous: httpx.Client, settings: Settings
) -> None:
    run_id = run(client)
    access = issue_token(signing_key(settings.state), "acme", "ann")
    path = f"/api/v1/runs/{run_id}/events"
    check(anonymous.get(path, params={"token": access}), 401, "unauthenticated")
    check(anonymous.get(path, params={"token": "a.b.c"}), 401, "unauthenticated")


def test_another_tenants_run_gets_none(client_for: ClientFor) -> None:
    run_id = run(client_for("acme"))
    for unknown in (run_id, new_id(), "x"):
        answer = client_for("globex").post(f"/api/v1/runs/{unknown}/stream-token")
        check(answer, 404, "not_found")


def test_another_tenants_stream_token_of_the_run_opens_nothing(
    client: httpx.Client, anonymous: httpx.Client, settings: Settings
) -> None:
    """As if somebody had signed one for a run of others."""
    run_id = RunId(run(client))
    mallory = Principal(TenantId("globex"), "mallory", frozenset(), 0)
    given, _ = issue_stream_token(signing_key(settings.state), mallory, run_id)
    answer = anonymous.get(f"/api/v1/runs/{run_id}/events", params={"token": given})
    check(answer, 404, "not_found")


def test_reading_runs_is_what_it_takes(client_for: ClientFor) -> None:
    run_id = run(client_for())
    other = client_for(scopes=("graphs:read",))
    check(other.post(f"/api/v1/runs/{run_id}/stream-token"), 403, "forbidden")
