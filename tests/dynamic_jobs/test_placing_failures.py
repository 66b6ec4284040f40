"""What fails while a run is placed: the platform, the servers, the run's own process."""

from typing import Any

import pytest
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError

from dynamic_jobs.placing.base import (
    Condition,
    Health,
    Placed,
    PlacementFailed,
    PlacementRequest,
)
from foundation.ids import RunId
from tests.dynamic_jobs.placing_cluster import (
    Cluster,
    at_once,
    cluster,
    engine_events,
    look,
    not_by_itself,
    placement,
    start,
    state_of,
    take_over,
    until,
    workers,
)

__all__ = ["cluster", "not_by_itself"]


def test_what_never_claims_its_run_is_placed_again_until_that_is_given_up(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamic_jobs.placing.watcher._FIRST_LOOK_SECONDS", 9.0)
    cluster.starts, cluster.told = False, Health("lost", "ImagePullBackOff")
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
        look(cluster, late=False)
        assert state_of(cluster, run_id) == "placed"  # it has only just been started
        for strikes in range(1, 6):
            until(cluster, run_id, "placed", attempt=strikes)
            look(cluster)
            assert cluster.bench.row(run_id)["strikes"] == strikes
            at_once(cluster, run_id)
        until(cluster, run_id, "placed", attempt=6)
        look(cluster)
        at_once(cluster, run_id)
        row = cluster.bench.wait_for(run_id)
    assert row["status"] == "failed"
    assert row["error"]["code"] == "worker_lost"
    assert "ImagePullBackOff" in row["error"]["message"]
    told = [told for told in engine_events(cluster, run_id) if "did not begin" in told]
    assert len(told) == 6
    assert all("ImagePullBackOff" in each for each in told)


@pytest.mark.parametrize("condition", ["starting", "running"])
def test_what_takes_too_long_to_claim_its_run_is_placed_again(
    cluster: Cluster, condition: Any
) -> None:
    cluster.starts, cluster.told = False, Health(condition, "Unschedulable")
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
        look(cluster)
        assert state_of(cluster, run_id) == "placed"
        cluster.bench.connection.execute(
            "UPDATE graphwright.placements SET placed_at = now() - interval '301 seconds'"
        )
        cluster.starts = True
        look(cluster)
        row = placement(cluster, run_id)
        assert row is not None
        assert row["reason"].startswith("Unschedulable (after 3")
        cluster.told = None
        at_once(cluster, run_id)
        assert cluster.bench.wait_for(run_id)["status"] == "succeeded"
    assert cluster.removed[0] == Placed(run_id, 1, "team-a")


@pytest.mark.usefixtures("not_by_itself")
def test_a_platform_that_is_away_is_tried_again(cluster: Cluster) -> None:
    cluster.fault = PlacementFailed("the API server is away", passing=True)
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "delayed")
        cluster.bench.connection.execute("UPDATE graphwright.placements SET failures = 2000")
        at_once(cluster, run_id)
        until(cluster, run_id, "delayed", attempt=2)  # however often it was
        assert cluster.bench.row(run_id)["strikes"] == 0
        cluster.fault = None
        at_once(cluster, run_id)
        assert cluster.bench.wait_for(run_id)["status"] == "succeeded"
    assert "the API server is away" in engine_events(cluster, run_id)[0]


def test_what_a_platform_refuses_fails(cluster: Cluster) -> None:
    cluster.fault = PlacementFailed("the manifest is wrong", hint="mend it")
    with workers(cluster):
        row = cluster.bench.wait_for(start(cluster))
    assert row["error"] == {
        "code": "placement_failed",
        "message": "the manifest is wrong",
        "hint": "mend it",
    }


@pytest.mark.usefixtures("not_by_itself")
def test_what_a_platform_does_not_explain_fails_in_the_end(cluster: Cluster) -> None:
    cluster.fault = RuntimeError("odd")
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "delayed")
        cluster.bench.connection.execute("UPDATE graphwright.placements SET unexplained = 5")
        at_once(cluster, run_id)
        row = cluster.bench.wait_for(run_id)
    assert row["error"]["code"] == "placement_failed"
    assert row["error"]["message"] == "kubernetes: RuntimeError: odd"


@pytest.mark.usefixtures("not_by_itself")
def test_servers_that_are_away_are_no_fault_of_the_run(cluster: Cluster) -> None:
    """Dagster's launchers write to the database, by connections of their own."""
    away = [
        ConnectionResetError("gone"),
        OperationalError("INSERT", {}, Exception("gone")),
        DagsterPostgresException("too many retries for DB connection"),
        PlacementFailed("the API server is away", passing=True),
    ]
    with workers(cluster):
        cluster.fault = away[0]
        run_id = start(cluster)
        for attempt, fault in enumerate([*away[1:], RuntimeError("odd"), None], start=1):
            until(cluster, run_id, "delayed", attempt)
            cluster.fault = fault
            at_once(cluster, run_id)
        assert cluster.bench.wait_for(run_id)["status"] == "succeeded"
    row = placement(cluster, run_id)
    assert row is not None
    assert (row["failures"], row["unexplained"]) == (0, 0)
    told = engine_events(cluster, run_id)
    assert len(told) == 3  # the first, second and fourth
    assert "odd" not in "".join(told)


@pytest.mark.usefixtures("not_by_itself")
def test_what_cannot_be_removed_keeps_the_run_waiting_and_does_not_fail_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(placed: Placed) -> Health:
        raise PlacementFailed("forbidden")

    cluster.starts, cluster.told = False, Health("lost", "broken")
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
        with monkeypatch.context() as patched:
            patched.setattr(cluster, "remove", refuse)
            look(cluster)
            patched.setattr(cluster, "health", refuse)
            at_once(cluster, run_id)
            told: list[str] = []
            while "cannot be removed: forbidden" not in "".join(told):
                assert cluster.bench.row(run_id)["ended_at"] is None
                told = engine_events(cluster, run_id)
            until(cluster, run_id, "delayed")
            at_once(cluster, run_id)
            while (placement(cluster, run_id) or {})["failures"] < 2:
                assert cluster.bench.row(run_id)["ended_at"] is None
        until(cluster, run_id, "delayed")
        at_once(cluster, run_id)
        until(cluster, run_id, "placed", attempt=2)
    assert cluster.removed == [Placed(run_id, 1, "team-a")]
    told = [told for told in engine_events(cluster, run_id) if "was lost" in told]
    assert len(told) == 1


@pytest.mark.usefixtures("not_by_itself")
@pytest.mark.parametrize("condition", ["starting", "running"])
def test_a_run_waits_until_its_last_attempt_has_ended(
    cluster: Cluster, condition: Condition
) -> None:
    cluster.starts = False
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
        cluster.told = Health(condition)
        take_back(cluster, run_id)
        for failures in (1, 2):
            at_once(cluster, run_id)
            while (placement(cluster, run_id) or {})["failures"] < failures:
                assert len(cluster.requests) == 1
            until(cluster, run_id, "delayed")
        assert cluster.removed == [Placed(run_id, 1, "team-a")] * 2  # asked for again
        cluster.told = Health("lost", "killed")
        at_once(cluster, run_id)
        until(cluster, run_id, "placed", attempt=2)
    assert cluster.bench.row(run_id)["strikes"] == 0
    assert (
        engine_events(cluster, run_id)
        == [
            "The run could not be placed yet: attempt 1 has not ended yet",
        ]
        * 2
    )


def take_back(cluster: Cluster, run_id: RunId) -> None:
    """As if it had handed its run back, to be placed again, but not by itself."""
    cluster.bench.connection.execute(
        "UPDATE graphwright.run_queue SET state = 'delayed', not_before = now() + interval '1 hour'"
        " WHERE run_id = %s",
        (run_id,),
    )


def test_what_was_started_after_the_run_was_taken_over_is_removed(cluster: Cluster) -> None:
    """Whoever placed the run anew has removed the first attempt before there was anything."""

    def after(request: PlacementRequest) -> None:
        if request.attempt == 1:
            take_over(cluster, request.run_id)
            until(cluster, request.run_id, "placed", attempt=2)

    cluster.starts, cluster.after = False, after
    with workers(cluster, placing_threads=2):
        run_id = start(cluster)
        until(cluster, run_id, "placed", attempt=2)
    assert cluster.removed == [Placed(run_id, 1, "team-a")] * 2


def test_what_is_told_of_one_attempt_is_not_held_against_the_next(cluster: Cluster) -> None:
    cluster.starts = False
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")

    def health(placed: Placed) -> Health:
        cluster.bench.connection.execute("UPDATE graphwright.placements SET attempt = 2")
        return Health("lost", "the first one broke")

    cluster.health = health
    look(cluster)
    assert state_of(cluster, run_id) == "placed"
    assert cluster.bench.row(run_id)["strikes"] == 0


def test_neither_placing_nor_time_in_which_the_platform_is_away_counts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.starts, cluster.told = False, Health("starting")
    cluster.after = lambda _: cluster.bench.connection.execute(
        "UPDATE graphwright.placements SET placed_at = now() - interval '301 seconds'"
    )
    with workers(cluster):
        run_id = start(cluster)
        until(cluster, run_id, "placed")
    look(cluster)
    assert state_of(cluster, run_id) == "placed"

    def away(placed: Placed) -> Health:
        raise PlacementFailed("away", passing=True)

    cluster.bench.connection.execute(
        "UPDATE graphwright.placements SET placed_at = now() - interval '301 seconds'"
    )
    with monkeypatch.context() as patched:
        patched.setattr(cluster, "health", away)
        look(cluster)
    cluster.bench.connection.execute("UPDATE graphwright.placements SET look_at = now()")
    look(cluster)
    assert state_of(cluster, run_id) == "placed"
