"""Each role of a running stack tells of itself on a port of its own."""

import time
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.graphwright.conftest import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

CHECKS = {
    "api": {"event_loop", "database", "sessions", "tenant_sessions", "sessions_by_key", "redis"},
    "hooks": {"event_loop", "database"},
    "worker": {"event_loop", "lease", "database", "redis"},
    "dispatcher": {"event_loop", "database", "redis"},
}


def get(stack: Stack, role: str, path: str) -> httpx.Response:
    url = stack.status()["metrics"][role]
    return httpx.get(f"{url}{path}", timeout=30, trust_env=False)


def metrics(stack: Stack, role: str) -> dict[str, float]:
    """Values by their names, over all labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(get(stack, role, "/metrics").text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.mark.parametrize("role", CHECKS)
def test_every_role_says_how_it_is(stack: Stack, role: str) -> None:
    for path, checks in (("/healthz", {"event_loop"}), ("/readyz", CHECKS[role])):
        # Each check has some seconds, which a busy machine may not give it at first.
        deadline = time.monotonic() + 60
        expected = {"status": "ready", "checks": dict.fromkeys(checks, "ok")}
        while (said := get(stack, role, path).json()) != expected:
            assert time.monotonic() < deadline, said
            time.sleep(0.1)


def test_each_role_tells_of_its_own_work(stack: Stack) -> None:
    """The examples have run, so everything has been counted at least once."""
    api = metrics(stack, "api")
    assert api["graphwright_http_requests_total"] > 0
    assert api["graphwright_database_pool_connections"] > 0
    assert metrics(stack, "hooks")["graphwright_http_requests_total"] > 0
    assert get(stack, "dispatcher", "/metrics").text.count("# TYPE graphwright_queue_") == 2


def test_the_workers_count_together(stack: Stack) -> None:
    """Whichever of them answers."""
    name = "graphwright_nodes_total"
    before = metrics(stack, "worker")[name]
    graph: dict[str, Any] = {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "counted"},
        "nodes": {"a": {"type": "data.transform", "with": {"value": 1}}},
    }
    with stack.http() as api:
        api.post("/graphs", json=graph).raise_for_status()
        runs = [api.post("/graphs/counted/runs").json()["run_id"] for _ in range(20)]
        deadline = time.monotonic() + 60
        while any(api.get(f"/runs/{run}").json()["ended_at"] is None for run in runs):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert {metrics(stack, "worker")[name] for _ in range(5)} == {before + 20}
