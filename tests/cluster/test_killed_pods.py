"""Pods are killed at random, again and again; every run completes, and no effect that is known is
repeated."""

import random
import time
from typing import Any

import pytest

from tests.cluster.stack import Stack
from tests.dynamic_jobs.conftest import graph

RUNS = 8
STEPS = 3
KILLS = 12
PAUSE_SECONDS = 1.0


def nodes(pods: Stack) -> dict[str, Any]:
    """Effects, with a second's time between them to be killed in."""
    found: dict[str, Any] = {}
    for step in range(STEPS):
        needs = [f"rest{step - 1}"] if step else []
        found[f"effect{step}"] = pods.gates.node(f"/effect{step}", *needs)
        found[f"rest{step}"] = {
            "type": "work.sleep",
            "needs": [f"effect{step}"],
            "with": {"seconds": 1},
        }
    return found


def happened(pods: Stack, run_id: str) -> list[tuple[str, str | None]]:
    page = pods.http.get(f"/api/v1/runs/{run_id}/events", params={"limit": 1000})
    return [(event["type"], event["node"]) for event in page.raise_for_status().json()["items"]]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_runs_survive_pods_that_are_killed_at_random(pods: Stack) -> None:
    document = graph(nodes(pods), name="killed", isolation="kubernetes")
    assert pods.post("/graphs", document).status_code == 201
    runs = [pods.post("/graphs/killed/runs", {}).json()["run_id"] for _ in range(RUNS)]
    dice, killed = random.Random(7), 0
    pods.until(lambda: pods.gates.calls["/effect0"], "first effect")
    while killed < KILLS:
        time.sleep(PAUSE_SECONDS)
        running = [run for run in runs if pods.run(run)["status"] == "running"]
        if not running:
            break
        pods.cluster.kill(dice.choice(running))
        killed += 1
    assert killed
    starts = 0
    for run in runs:
        assert pods.ended(run)["status"] == "succeeded"
        seen = happened(pods, run)
        for step in range(STEPS):
            node = f"effect{step}"
            done = seen.index(("node.succeeded", node))
            assert ("node.started", node) not in seen[done:]
            starts += seen.count(("node.started", node))
    # A pod may die between its word that a node starts and the call.
    assert sum(pods.gates.calls[f"/effect{step}"] for step in range(STEPS)) <= starts
