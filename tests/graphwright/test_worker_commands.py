"""``graphwright worker list`` and ``drain`` on a real pool, without the rest of a stack."""

import json
import os
import subprocess
from typing import Any

from foundation.ids import new_id
from tests import forking
from tests.dynamic_jobs.conftest import Bench, bench, graph, value
from tests.dynamic_jobs.test_worker_pool import Gate, gate, workers

__all__ = ["bench", "gate"]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs in the environment of ``bench``."""
    return forking.run(["worker", *arguments], os.environ)


def listed() -> list[dict[str, Any]]:
    said = command("list", "--json")
    assert said.returncode == 0, said.stderr
    return [json.loads(line) for line in said.stdout.splitlines()]


def test_a_drained_worker_ends_with_its_pool_and_its_runs(bench: Bench, gate: Gate) -> None:
    version = bench.publish(graph({"slow": gate.node, "after": value(1, "slow")}))
    with workers(bench, processes=2) as running, workers(bench) as other:
        run_id = bench.start(version)
        gate.asked.wait()
        found = listed()
        pids = {child.pid for child in (*running.children, *other.children)}
        assert {each["pid"] for each in found} == pids
        (busy,) = (each for each in found if each["runs"])
        assert (busy["runs"], busy["draining"]) == (1, False)
        its_pool, the_other = running, other
        if busy["pool"] == other.process.pid:
            its_pool, the_other = other, running
        assert busy["pool"] == its_pool.process.pid

        said = command("drain", busy["worker"])
        assert said.returncode == 0, said.stderr
        told = [json.loads(line) for line in said.stdout.splitlines()]
        assert {each["worker"] for each in told} == {
            each["worker"] for each in found if each["pool"] == busy["pool"]
        }
        its_pool.until("stopping: 1 runs")
        assert all(each["draining"] for each in listed() if each["worker"] == busy["worker"])
        gate.open.set()
        assert its_pool.ended() == 0, its_pool.lines
        assert bench.row(run_id)["status"] == "succeeded"

        assert {each["pool"] for each in listed()} == {the_other.process.pid}
        assert command("drain", "--all").returncode == 0
        assert the_other.ended() == 0, the_other.lines
    assert listed() == []


def test_what_cannot_be_drained_is_said(bench: Bench) -> None:
    for worker in (new_id(), "nonsense"):
        said = command("drain", worker)
        assert (said.returncode, said.stdout) == (1, "")
        assert "there is no worker" in said.stderr
    for arguments in ((), (new_id(), "--all")):
        assert command("drain", *arguments).returncode == 2
