"""Long tests of runs, for ``make soak``."""

import time
from collections import Counter

import pytest

from tests.dynamic_jobs.conftest import Bench, graph, value

RUNS = 3_000


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_workers_that_come_and_go_lose_no_run_and_repeat_no_node(bench: Bench) -> None:
    """Every second a worker is stopped without grace; the next takes over what it handed back.

    Each run lasts longer than a worker.
    """
    nodes = {f"n{i}": value(i, *([f"n{i - 1}"] if i else [])) for i in range(6)}
    nodes["wait"] = {"type": "work.sleep", "needs": ["n2"], "with": {"seconds": 3}}
    nodes["last"] = value("${{ nodes.n5.output }}", "n5", "wait")
    version = bench.publish(graph(nodes, outputs={"last": "${{ nodes.last.output }}"}))
    runs = bench.start_many(version, RUNS)

    began, workers = time.monotonic(), 0
    left = "SELECT count(*) AS n FROM graphwright.runs WHERE status <> 'succeeded'"
    while (row := bench.connection.execute(left).fetchone()) and row["n"]:
        assert time.monotonic() - began < 300, f"{row['n']} runs are left"
        workers += 1
        with bench.worker(drain_seconds=0.0):
            time.sleep(1)

    rows = bench.connection.execute(
        "SELECT run_id, step_key FROM event_logs WHERE dagster_event_type = 'STEP_SUCCESS'"
    )
    successes = Counter((row["run_id"], row["step_key"]) for row in rows)
    assert set(successes) == {(run_id, node) for run_id in runs for node in nodes}
    assert set(successes.values()) == {1}, "a node that had completed ran again"
    ends = bench.connection.execute(
        "SELECT run_id FROM event_logs WHERE dagster_event_type = 'PIPELINE_SUCCESS'"
    )
    assert Counter(row["run_id"] for row in ends) == Counter(runs)
    print(f"{RUNS} runs, {workers} workers, {time.monotonic() - began:.0f} s")
