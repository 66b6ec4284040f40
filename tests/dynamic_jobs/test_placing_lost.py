"""Placed runs that are lost, with their process or with who places them: never executed twice."""

import asyncio

import pytest

from dynamic_jobs.placing.base import Health, Placed, PlacementRequest
from dynamic_jobs.queueing.claiming import claim_solo
from dynamic_jobs.queueing.waking import WAKE
from foundation.database import async_connect
from foundation.ids import RunId, new_id
from tests.dynamic_jobs.conftest import graph
from tests.dynamic_jobs.placing_cluster import (
    ONE,
    Cluster,
    cluster,
    engine_events,
    look,
    start,
    take_over,
    until,
    workers,
)

__all__ = ["cluster"]


def test_a_worker_that_dies_while_it_places_loses_nothing_and_starts_nothing_twice(
    cluster: Cluster,
) -> None:
    """What it had started waits for the run, until it is removed for the next attempt."""

    def after(request: PlacementRequest) -> None:
        if request.attempt == 1:
            take_over(cluster, request.run_id)

    cluster.after = after
    with workers(cluster):
        run_id = start(cluster)
        row = cluster.bench.wait_for(run_id)
    assert row["status"] == "succeeded", row["error"]
    assert [request.attempt for request in cluster.requests] == [1, 2]
    assert cluster.removed[0] == Placed(run_id, 1, "team-a")
    kinds = [kind for kind, _ in cluster.bench.events(run_id)]
    assert (kinds.count("PIPELINE_START"), kinds.count("STEP_SUCCESS")) == (1, 1)


async def claim_it(cluster: Cluster, run_id: RunId) -> None:
    async with await async_connect(cluster.bench.settings.database_url) as connection:
        assert await claim_solo(connection, new_id(), run_id)


@pytest.mark.parametrize(("on_lost", "status"), [("resume", "succeeded"), ("fail", "failed")])
def test_a_warm_run_whose_worker_is_lost(cluster: Cluster, on_lost: str, status: str) -> None:
    bench = cluster.bench
    run_id = bench.start(bench.publish(graph(ONE, on_lost=on_lost)))
    bench.connection.execute("UPDATE graphwright.run_queue SET state = 'solo'")
    asyncio.run(claim_it(cluster, run_id))
    bench.connection.execute("UPDATE graphwright.runs SET status = 'running', started_at = now()")
    take_over(cluster, run_id)
    with workers(cluster):
        row = bench.wait_for(run_id)
    assert row["status"] == status
    assert (row["error"] or {"code": None})["code"] == ("run_lost" if on_lost == "fail" else None)


@pytest.mark.parametrize("on_lost", ["resume", "fail"])
def test_a_run_whose_pod_is_lost(cluster: Cluster, on_lost: str) -> None:
    cluster.starts, cluster.told = False, Health("lost", "OOMKilled")
    with workers(cluster):
        run_id = start(cluster, on_lost=on_lost)
        until(cluster, run_id, "placed")
        asyncio.run(claim_it(cluster, run_id))
        cluster.bench.connection.execute(
            "UPDATE graphwright.runs SET status = 'running', started_at = now()"
        )
        cluster.starts = True
        take_over(cluster, run_id)
        cluster.bench.connection.execute(WAKE)
        row = cluster.bench.wait_for(run_id)
    if on_lost == "resume":
        assert row["status"] == "succeeded", row["error"]
        assert cluster.requests[1].resumes
        assert engine_events(cluster, run_id) == ["Attempt 1 was lost: OOMKilled."]
    else:
        assert (row["status"], row["error"]["code"]) == ("failed", "run_lost")
        assert "OOMKilled" in row["error"]["message"]
        cluster.told = Health("finished")
        look(cluster)
    assert cluster.removed == [Placed(run_id, 1, "team-a")]


def test_a_run_that_was_only_queued_is_not_lost_with_its_worker(cluster: Cluster) -> None:
    """Nothing of it was under way."""

    def after(request: PlacementRequest) -> None:
        if request.attempt == 1:
            take_over(cluster, request.run_id)

    cluster.after = after
    with workers(cluster):
        row = cluster.bench.wait_for(start(cluster, on_lost="fail"))
    assert row["status"] == "succeeded", row["error"]


def test_workers_place_each_run_once(cluster: Cluster) -> None:
    version = cluster.bench.publish(graph(ONE, isolation="kubernetes"))
    with workers(cluster, 2, placing_threads=3):
        runs = cluster.bench.start_many(version, 6)
        for run_id in runs:
            assert cluster.bench.wait_for(run_id)["status"] == "succeeded"
    assert sorted(request.run_id for request in cluster.requests) == sorted(runs)
    for run_id in runs:
        assert cluster.bench.events(run_id).count(("STEP_SUCCESS", "one")) == 1
