"""The caller's own tenant over HTTP."""

import httpx
import pytest

from foundation.database import connect
from foundation.settings import Settings
from graphwright.home import dagster_environment
from tests.clock import let_pass
from tests.live_api.conftest import ClientFor
from tests.live_api.test_graphs import document
from tests.live_api.test_problems import check

TENANTS = "/api/v1/tenants"


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in dagster_environment(settings).items():
        monkeypatch.setenv(name, text)


def publish(client: httpx.Client) -> None:
    assert client.post("/api/v1/graphs", json=document("small")).status_code == 201


def test_policy_and_usage(client: httpx.Client, settings: Settings) -> None:
    publish(client)
    let_pass(0, 0, "UTC")  # when another day's runs begin to count
    for _ in range(2):
        assert client.post("/api/v1/graphs/small/runs", json={}).status_code == 202
    with connect(settings.database_url) as connection:
        connection.execute("UPDATE graphwright.tenants SET max_running = 7 WHERE tenant = 'acme'")
        connection.execute(
            "UPDATE graphwright.runs SET status = 'running' WHERE run_id ="
            " (SELECT run_id FROM graphwright.runs LIMIT 1)"
        )
    found = client.get(f"{TENANTS}/acme").json()
    assert found["tenant"] == "acme"
    assert found["policy"] == {
        "weight": 1,
        "max_running": 7,
        **dict.fromkeys(("max_queued", "max_runs_per_day", "max_graphs", "retention_days")),
    }
    assert found["usage"] == {"queued": 1, "running": 1, "runs_today": 2, "graphs": 1}
    assert client.get(TENANTS).json() == {"items": [found], "next_cursor": None}


def test_another_tenant_is_like_none(client_for: ClientFor) -> None:
    acme, globex = client_for("acme"), client_for("globex")
    publish(acme)
    for name in ("acme", "nobody", "%00", ""):
        answer = globex.get(f"{TENANTS}/{name}")
        if name:
            check(answer, 404, "not_found")
    assert globex.get(TENANTS).json()["items"] == []
