"""Workers are killed with -9 at random; nothing is lost and no effect that is known is repeated."""

import random
import time
from typing import Any

import httpx
import psutil
import pytest

from foundation.database import connect
from tests.faults.installation import Installation, installation
from tests.faults.outside import Outside, outside

NODES = 20
EFFECTS = (3, 7, 11, 15, 19)

# When a node with effects had completed, by the clock of the worker, which is that of the test.
COMPLETED = """
SELECT run_id || '.' || step_key AS key, count(*) AS times,
    extract(epoch FROM min(timestamp) AT TIME ZONE 'UTC')::float AS at
FROM event_logs WHERE dagster_event_type = 'STEP_SUCCESS' GROUP BY run_id, step_key
"""


def document(url: str) -> dict[str, Any]:
    """A chain of 20 nodes, five of which call the world outside."""
    nodes: dict[str, Any] = {}
    for number in range(NODES):
        needs = [f"n{number - 1}"] if number else []
        if number in EFFECTS:
            call = {"method": "POST", "url": url, "json": {"number": number}}
            nodes[f"n{number}"] = {"type": "http.request", "needs": needs, "with": call}
        else:
            nodes[f"n{number}"] = {
                "type": "data.transform",
                "needs": needs,
                "with": {"value": number},
            }
    return {
        "apiVersion": "graphwright/v1",
        "kind": "Graph",
        "metadata": {"name": "chain"},
        "nodes": nodes,
    }


def trigger(url: str, headers: dict[str, str], graph: str, runs: int) -> list[str]:
    """Start runs, and return their ids."""
    with httpx.Client(
        base_url=f"{url}/api/v1", headers=headers, trust_env=False, timeout=60
    ) as client:
        started = [client.post(f"/graphs/{graph}/runs", json={}) for _ in range(runs)]
    assert {answer.status_code for answer in started} == {202}
    return [answer.json()["run_id"] for answer in started]


def publish(url: str, headers: dict[str, str], graph: dict[str, Any]) -> None:
    answer = httpx.post(
        f"{url}/api/v1/graphs", headers=headers, json=graph, trust_env=False, timeout=60
    )
    assert answer.status_code == 201, answer.text


def kill_for(made: Installation, seconds: float, pause: float, dice: random.Random) -> int:
    """Kill a worker, chosen at random, again and again; how many were killed."""
    killed, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(pause)
        living = made.workers()
        if living:
            try:
                dice.choice(living).kill()
            except psutil.NoSuchProcess:
                continue
            killed += 1
    return killed


def check(made: Installation, world: Outside, runs: list[str]) -> dict[str, int]:
    """Every run has succeeded, and what had completed was not called again; some figures."""
    assert made.outcomes() == {("succeeded", None): len(runs)}
    with connect(made.settings.database_url) as connection:
        rows = connection.execute(COMPLETED).fetchall()
        queued = connection.execute("SELECT count(*) AS n FROM graphwright.run_queue").fetchone()
        lost = connection.execute("SELECT sum(epoch) AS n FROM graphwright.runs").fetchone()
    assert queued == {"n": 0}
    assert len(rows) == len(runs) * NODES
    assert {row["times"] for row in rows} == {1}, "a node that had completed ran again"
    completed = {row["key"]: row["at"] for row in rows}
    assert set(world.calls) == {f"{run}.n{number}" for run in runs for number in EFFECTS}
    late = {key for key, calls in world.calls.items() if max(calls) > completed[key]}
    assert not late, "a node with effects that had completed was called again"
    assert lost is not None
    calls = sum(len(each) for each in world.calls.values())
    return {"calls": calls, "repeated": calls - len(world.calls), "epochs": lost["n"]}


def killing(runs: int, seconds: float, pause: float, patience: float) -> str:
    with (
        installation(lease_seconds=2, worker_processes=2) as made,
        outside(delay_seconds=0.05) as world,
    ):
        url = made.api()
        publish(url, made.headers(), document(world.url))
        for _ in range(2):
            made.start("worker", worker_runs=8)
        made.until_working(4)
        started = trigger(url, made.headers(), "chain", runs)
        killed = kill_for(made, seconds, pause, random.Random(4))
        began = time.monotonic()
        made.until_ended(runs, patience)
        figures = check(made, world, started)
        assert killed
        return (
            f"{runs} runs of {NODES} nodes, {killed} workers killed with -9, all succeeded "
            f"{time.monotonic() - began:.1f} s after the last; {figures['calls']} calls outside, "
            f"{figures['repeated']} of them repeated (all of nodes that were interrupted), "
            f"{figures['epochs']} claims and losses"
        )


def test_a_few_killed_workers() -> None:
    killing(runs=40, seconds=4, pause=0.5, patience=60)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_worker_killed_every_second_for_a_minute() -> None:
    print(killing(runs=500, seconds=60, pause=1, patience=120))
