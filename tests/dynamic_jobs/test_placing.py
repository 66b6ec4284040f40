"""Runs that are placed elsewhere: handed over, executed, cancelled, paused, back after a wait."""

import time
from threading import Event

from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.pausing import pause, resume
from dynamic_jobs.placing.base import Placed, PlacementRequest
from tests.dynamic_jobs.conftest import TENANT, value
from tests.dynamic_jobs.placing_cluster import (
    Cluster,
    cluster,
    look,
    placement,
    start,
    state_of,
    until,
    workers,
)

__all__ = ["cluster"]


def test_a_run_is_executed_where_it_was_placed(cluster: Cluster) -> None:
    with workers(cluster) as (worker,):
        run_id = start(cluster, name="etl", resources={"memory": "1Gi"})
        row = cluster.bench.wait_for(run_id)
    (request,) = cluster.requests
    assert row["status"] == "succeeded", row["error"]
    assert row["worker"] not in (None, worker.id)
    assert (request.run_id, request.tenant, request.graph_name) == (run_id, TENANT, "etl")
    assert request.graph_id == str(row["graph_id"])
    assert (request.attempt, request.resumes) == (1, False)
    assert request.placement.resources is not None
    assert request.placement.resources.memory == "1Gi"
    assert [kind for kind, _ in cluster.bench.events(run_id)] == [
        "PIPELINE_ENQUEUED",
        "PIPELINE_DEQUEUED",
        "PIPELINE_STARTING",
        "PIPELINE_START",
        "STEP_START",
        "STEP_OUTPUT",
        "HANDLED_OUTPUT",
        "STEP_SUCCESS",
        "PIPELINE_SUCCESS",
    ]
    cluster.threads[run_id, 1].join()
    look(cluster)
    assert cluster.removed == [Placed(run_id, 1, "team-a")]
    assert placement(cluster, run_id) is None


def test_what_is_started_before_the_run_was_handed_over_waits_for_it(cluster: Cluster) -> None:
    begun = Event()

    def after(request: PlacementRequest) -> None:
        cluster.start(request.run_id, request.attempt)
        workers = "SELECT worker FROM graphwright.workers"
        while len(cluster.bench.connection.execute(workers).fetchall()) < 2:
            time.sleep(0.01)  # it has not registered yet, to look for its run then
        begun.set()

    cluster.starts, cluster.after = False, after
    with workers(cluster):
        assert cluster.bench.wait_for(start(cluster))["status"] == "succeeded"
    assert begun.is_set()


def test_a_placed_run_is_cancelled_at_once_and_what_was_started_removed(cluster: Cluster) -> None:
    cluster.starts = False
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
        assert cancel(cluster.bench.connection, cluster.bench.storage.writer, TENANT, run_id) == (
            "cancelled"
        )
    look(cluster, late=False)
    assert cluster.removed == [Placed(run_id, 1, "team-a")]
    assert placement(cluster, run_id) is None
    cluster.start(run_id, 1)  # it comes late, and finds nothing
    cluster.threads[run_id, 1].join()
    assert cluster.bench.row(run_id)["started_at"] is None


def test_a_run_is_cancelled_while_it_is_being_placed(cluster: Cluster) -> None:
    def after(request: PlacementRequest) -> None:
        writer = cluster.bench.storage.writer
        cancel(cluster.bench.connection, writer, TENANT, request.run_id)

    cluster.starts, cluster.after = False, after
    with workers(cluster):
        run_id = start(cluster)
        assert cluster.bench.wait_for(run_id)["status"] == "cancelled"
    assert state_of(cluster, run_id) is None


def test_a_placed_run_is_paused_and_placed_again_when_it_goes_on(cluster: Cluster) -> None:
    connection, writer = cluster.bench.connection, cluster.bench.storage.writer
    cluster.starts = False
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
        assert pause(connection, writer, TENANT, run_id) == "paused"
        look(cluster, late=False)
        assert cluster.removed == [Placed(run_id, 1, "team-a")]
        cluster.starts = True
        resume(connection, writer, TENANT, run_id)
        assert cluster.bench.wait_for(run_id)["status"] == "succeeded"
    assert [request.attempt for request in cluster.requests] == [1, 2]
    assert cluster.removed == [Placed(run_id, 1, "team-a")]  # once


def test_a_run_that_waits_leaves_its_place_and_comes_back_to_another(cluster: Cluster) -> None:
    nodes = {
        "first": value(1),
        "wait": {"type": "work.sleep", "needs": ["first"], "with": {"seconds": 3_600}},
        "last": value("${{ nodes.first.output }}", "wait"),
    }
    cluster.bench.settings = cluster.bench.settings.model_copy(update={"leave_seconds": 0.2})
    with workers(cluster):
        run_id = start(cluster, nodes)
        cluster.bench.wait_for(run_id, "waiting")
        cluster.threads[run_id, 1].join()
        look(cluster, late=False)
        assert cluster.removed == [Placed(run_id, 1, "team-a")]
        cluster.bench.let_pass(run_id, 3_599.5)
        assert cluster.bench.wait_for(run_id)["status"] == "succeeded"
    first, second = cluster.requests
    assert (first.attempt, first.resumes, second.attempt, second.resumes) == (1, False, 2, True)
    assert cluster.bench.events(run_id).count(("STEP_START", "first")) == 1


def test_a_policy_that_has_changed_since_the_graph_was_published(cluster: Cluster) -> None:
    run_id = start(cluster)
    cluster.bench.connection.execute(
        "UPDATE graphwright.tenants SET isolations = '{warm}' WHERE tenant = %s", (TENANT,)
    )
    with workers(cluster):
        row = cluster.bench.wait_for(run_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "isolation_not_allowed")
    assert row["error"]["pointer"] == "/isolation"
    assert not cluster.requests
