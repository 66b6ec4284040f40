"""Cancelling, pausing and resuming runs and graphs, whatever they wait for."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from dynamic_jobs.controlling import cancelling
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.graphs import pause_graph, resume_graph
from dynamic_jobs.controlling.pausing import PAUSE, pause, resume
from dynamic_jobs.queueing.holding import release_missed
from foundation.database import AsyncPool, connect
from foundation.errors import Conflict, NotFound
from foundation.ids import GraphId, RunId, TenantId, new_id
from graph_defs.versions import GraphVersion
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_executor import Gate, flaky, more_node_types
from tests.dynamic_jobs.test_policies import awaited, client_events, heard

__all__ = ["more_node_types"]

OTHER = TenantId("other")
ONE = {"one": value(1)}
ASIDE = ("solo", "unplaced", "placed")
QUEUED = ("ready", "delayed", "blocked", "limited", "held", *ASIDE)


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def state_of(bench: Bench, run_id: RunId) -> str | None:
    """What it waits for on the queue; None where it is not on it."""
    statement = "SELECT state FROM graphwright.run_queue WHERE run_id = %s"
    row = bench.connection.execute(statement, (run_id,)).fetchone()
    return None if row is None else row["state"]


def places(bench: Bench) -> set[str]:
    """The runs that hold places in slots."""
    rows = bench.connection.execute("SELECT run_id::text FROM graphwright.run_slots")
    return {row["run_id"] for row in rows}


def set_limit(bench: Bench, most: int | None) -> None:
    bench.connection.execute("UPDATE graphwright.tenants SET max_running = %s", (most,))


def stop(bench: Bench, run_id: RunId) -> str:
    return cancel(bench.connection, bench.storage.writer, TENANT, run_id)


def rest(bench: Bench, run_id: RunId) -> str:
    return pause(bench.connection, bench.storage.writer, TENANT, run_id)


def go_on(bench: Bench, run_id: RunId) -> str:
    return resume(bench.connection, bench.storage.writer, TENANT, run_id)


def types(bench: Bench, run_id: RunId) -> list[str]:
    return [event["type"] for event in client_events(bench, run_id)]


def queued_as(bench: Bench, state: str) -> RunId:
    """A run that waits for this."""
    if state == "blocked":
        version = bench.publish(graph(ONE, concurrency={"limit": 1}))
        bench.start(version)
        return bench.start(version)
    version = bench.publish(graph(ONE))
    match state:
        case "delayed":
            return bench.start(version, not_before=in_an_hour())
        case "limited":
            bench.publish(graph(ONE))
            set_limit(bench, 0)
        case "held":
            pause_graph(bench.connection, TENANT, GraphId(version.graph_id))
        case _:
            pass
    run_id = bench.start(version)
    if state in ASIDE:
        bench.connection.execute("UPDATE graphwright.run_queue SET state = %s", (state,))
    return run_id


@pytest.mark.parametrize("state", QUEUED)
def test_a_queued_run_is_cancelled_at_once(bench: Bench, state: str) -> None:
    run_id = queued_as(bench, state)
    assert state_of(bench, run_id) == state
    assert stop(bench, run_id) == "cancelled"
    assert state_of(bench, run_id) is None
    assert bench.row(run_id)["ended_at"] is not None
    assert [kind for kind, _ in bench.events(run_id)][-2:] == [
        "PIPELINE_CANCELING",
        "PIPELINE_CANCELED",
    ]
    with pytest.raises(Conflict):
        stop(bench, run_id)


def test_a_cancelled_run_gives_up_its_place(bench: Bench) -> None:
    version = bench.publish(graph(ONE, concurrency={"limit": 1}))
    first, second = bench.start(version), bench.start(version)
    assert (state_of(bench, first), state_of(bench, second)) == ("ready", "blocked")
    stop(bench, first)
    assert state_of(bench, second) == "ready"
    assert places(bench) == {second}


@pytest.mark.parametrize("started", [False, True])
def test_a_paused_run_is_cancelled_without_a_worker(bench: Bench, started: bool) -> None:
    with Gate() as gate:
        run_id = bench.start(bench.publish(graph({"a": gate.node, "b": value(1, "a")})))
        if started:
            with bench.worker(http_private=True, leave_seconds=7_200):
                gate.asked(1)
                rest(bench, run_id)
                heard(bench)
                gate.answer(200)
                bench.wait_for(run_id, "paused")
        else:
            assert rest(bench, run_id) == "paused"
    assert state_of(bench, run_id) is None
    assert stop(bench, run_id) == "cancelled"
    assert state_of(bench, run_id) is None


@pytest.mark.parametrize(("leave_seconds", "status"), [(3_600, "running"), (0.05, "waiting")])
def test_a_run_is_cancelled_in_a_retry_delay(
    bench: Bench, leave_seconds: float, status: str
) -> None:
    document = graph({"a": flaky(9, limit=9, delay_seconds=3_600), "b": value(1, "a")})
    run_id = bench.start(bench.publish(document))
    with bench.worker(leave_seconds=leave_seconds):
        awaited(bench, run_id, "node.retrying")
        bench.wait_for(run_id, status)
        stop(bench, run_id)
        assert bench.wait_for(run_id)["status"] == "cancelled"


@pytest.mark.parametrize("status", ["queued", "paused"])
def test_a_cancel_that_is_cut_off_is_completed_by_a_worker(bench: Bench, status: str) -> None:
    run_id = bench.start(bench.publish(graph(ONE)))
    if status == "paused":
        rest(bench, run_id)
    values = {"tenant": TENANT, "run_id": run_id}
    bench.connection.execute(cancelling.POSTPONE, values)
    bench.connection.execute(cancelling.CANCELLING, values)
    assert state_of(bench, run_id) == "delayed"
    bench.connection.execute("UPDATE graphwright.run_queue SET not_before = now()")
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "cancelled"


@pytest.mark.parametrize("state", QUEUED)
def test_a_queued_run_is_paused_and_waits_for_the_same_again(bench: Bench, state: str) -> None:
    run_id = queued_as(bench, state)
    assert rest(bench, run_id) == "paused"
    assert rest(bench, run_id) == "paused", "it is so already"
    assert state_of(bench, run_id) is None
    assert go_on(bench, run_id) == "queued"
    assert go_on(bench, run_id) == "queued", "it is so already"
    assert state_of(bench, run_id) == ("ready" if state in ASIDE else state)
    assert types(bench, run_id) == ["run.queued", "run.paused", "run.resumed"]


def test_a_paused_run_leaves_its_place_to_others(bench: Bench) -> None:
    version = bench.publish(graph(ONE, concurrency={"limit": 1}))
    first, second = bench.start(version), bench.start(version)
    rest(bench, first)
    assert places(bench) == {second}
    go_on(bench, first)
    assert (state_of(bench, first), state_of(bench, second)) == ("blocked", "ready")
    with bench.worker():
        for run_id in (first, second):
            assert bench.wait_for(run_id)["status"] == "succeeded"


def test_a_run_that_waits_off_its_worker_is_paused_where_it_was(bench: Bench) -> None:
    waits = {"type": "work.sleep", "needs": ["a"], "with": {"seconds": 3_600}}
    nodes = {"a": value(1), "wait": waits}
    run_id = bench.start(bench.publish(graph(nodes, concurrency={"limit": 1})))
    with bench.worker(leave_seconds=0.05):
        bench.wait_for(run_id, "waiting")
        assert rest(bench, run_id) == "paused"
        assert places(bench) == {run_id}, "it has started"
        assert go_on(bench, run_id) != "paused"
        bench.wait_for(run_id, "waiting")
        bench.let_pass(run_id, 3_599.5)
        assert bench.wait_for(run_id)["status"] == "succeeded"
    assert [kind for kind, node in bench.events(run_id) if node == "wait"].count("STEP_START") == 1


def test_a_running_run_is_paused_when_what_runs_has_ended(bench: Bench) -> None:
    with Gate() as gate:
        document = graph({"a": gate.node, "b": value(1, "a")}, concurrency={"limit": 1})
        run_id = bench.start(bench.publish(document))
        with bench.worker(http_private=True, leave_seconds=7_200):
            gate.asked(1)
            assert rest(bench, run_id) == "running"
            assert rest(bench, run_id) == "running"
            heard(bench)
            gate.answer(200)
            row = bench.wait_for(run_id, "paused")
            assert (row["worker"], row["pausing"]) == (None, False)
            assert places(bench) == {run_id}
            go_on(bench, run_id)
            assert bench.wait_for(run_id)["status"] == "succeeded"
    seen = types(bench, run_id)
    assert seen.count("run.paused") == seen.count("run.resumed") == 1
    assert seen.index("run.paused") < seen.index("run.resumed")
    events = bench.events(run_id)
    assert events.count(("STEP_START", "a")) == events.count(("STEP_START", "b")) == 1


def test_a_run_that_is_resumed_before_it_was_left_goes_on(bench: Bench) -> None:
    with Gate() as gate:
        run_id = bench.start(bench.publish(graph({"a": gate.node, "b": value(1, "a")})))
        with bench.worker(http_private=True):
            gate.asked(1)
            rest(bench, run_id)
            assert go_on(bench, run_id) == "running"
            gate.answer(200)
            assert bench.wait_for(run_id)["status"] == "succeeded"


def test_a_pause_outlives_the_worker(bench: Bench) -> None:
    """The one that was asked dies without having heeded it; its successor does."""
    version = bench.publish(graph({"a": value(1)}))
    run_id = bench.start(version)
    bench.connection.execute("DELETE FROM graphwright.run_queue")
    bench.connection.execute(
        "UPDATE graphwright.runs"
        " SET worker = %s, epoch = 1, status = 'running', started_at = now()",
        (new_id(),),
    )
    assert rest(bench, run_id) == "running"
    with bench.worker(lease_seconds=0.2):
        bench.wait_for(run_id, "paused")
        assert types(bench, run_id)[-1] == "run.paused"
        assert ("STEP_START", "a") not in bench.events(run_id)
        go_on(bench, run_id)
        assert bench.wait_for(run_id)["status"] == "succeeded"


def test_a_pause_while_nobody_listens_is_heeded(bench: Bench) -> None:
    listening = (
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND query LIKE '%%AS held (tenant, run_id)%%'"  # the last that a listener asks
    )
    version = bench.publish(graph({"wait": {"type": "work.sleep", "with": {"seconds": 60}}}))
    run_id = bench.start(version)
    with bench.worker(leave_seconds=3_600):
        bench.wait_for(run_id, "running")
        while not bench.connection.execute(f"SELECT {listening}", ()).fetchall():
            pass
        bench.connection.execute(f"SELECT pg_terminate_backend(pid) {listening}", ())
        values = {"tenant": TENANT, "run_id": run_id, "dequeued": False, "waited": False}
        bench.connection.execute(PAUSE, values)  # and nobody is told
        bench.wait_for(run_id, "paused")


@pytest.mark.parametrize("change", [cancel, pause, resume])
def test_only_its_tenant_may_do_that_and_not_after_the_end(
    bench: Bench, change: Callable[..., str]
) -> None:
    run_id = bench.start(bench.publish(graph(ONE)))
    with pytest.raises(NotFound):
        change(bench.connection, bench.storage.writer, OTHER, run_id)
    stop(bench, run_id)
    with pytest.raises(Conflict):
        change(bench.connection, bench.storage.writer, TENANT, run_id)


@pytest.mark.parametrize("change", [pause, resume])
def test_a_run_that_is_being_cancelled_stays_so(bench: Bench, change: Callable[..., str]) -> None:
    run_id = bench.start(bench.publish(graph(ONE)))
    bench.connection.execute("UPDATE graphwright.runs SET status = 'cancelling'")
    with pytest.raises(Conflict, match="cancelled"):
        change(bench.connection, bench.storage.writer, TENANT, run_id)
    assert state_of(bench, run_id) == "ready"


def test_a_paused_graph_holds_what_has_not_started(bench: Bench) -> None:
    with Gate() as gate:
        version = bench.publish(graph({"a": gate.node, "b": value(1, "a")}))
        graph_id = GraphId(version.graph_id)
        other = bench.start(bench.publish(graph(ONE, name="other")))
        with bench.worker(http_private=True):
            under_way = bench.start(version)
            gate.asked(1)
            pause_graph(bench.connection, TENANT, graph_id)
            held = bench.start(version)
            assert state_of(bench, held) == "held"
            gate.answer(200)
            assert bench.wait_for(under_way)["status"] == "succeeded"
            assert bench.wait_for(other)["status"] == "succeeded"
            assert state_of(bench, held) == "held"
            gate.answer(200)
            resume_graph(bench.connection, TENANT, graph_id)
            assert bench.wait_for(held)["status"] == "succeeded"


def test_a_resumed_graph_s_runs_wait_for_what_they_waited_for(bench: Bench) -> None:
    version = bench.publish(graph(ONE, concurrency={"limit": 1}))
    graph_id = GraphId(version.graph_id)
    first, second = bench.start(version), bench.start(version)
    later = bench.start(version, not_before=in_an_hour())
    pause_graph(bench.connection, TENANT, graph_id)
    assert {state_of(bench, run) for run in (first, second, later)} == {"held"}
    assert places(bench) == set()
    resume_graph(bench.connection, TENANT, graph_id)
    assert [state_of(bench, run) for run in (first, second, later)] == [
        "ready",
        "blocked",
        "delayed",
    ]


def test_a_delayed_run_that_slipped_through_is_held_when_it_is_due(bench: Bench) -> None:
    version = bench.publish(graph(ONE))
    run_id = bench.start(version, not_before=in_an_hour())
    pause_graph(bench.connection, TENANT, GraphId(version.graph_id))
    bench.connection.execute(
        "UPDATE graphwright.run_queue SET state = 'delayed', not_before = now()"
    )
    with bench.worker():
        other = bench.start(bench.publish(graph(ONE, name="other")))
        bench.wait_for(other)
        while state_of(bench, run_id) == "delayed":
            pass
    assert state_of(bench, run_id) == "held"


def test_a_run_that_was_held_as_its_graph_was_resumed_is_released(bench: Bench) -> None:
    held = [bench.start(published(bench, f"graph-{n}", held=n != 1)) for n in range(3)]
    bench.connection.execute("UPDATE graphwright.run_queue SET state = 'held'")

    async def sweep(pool: AsyncPool) -> Any:
        async with pool.connection() as connection:
            return await release_missed(connection, None)

    assert bench.with_pool(sweep) is None
    assert [state_of(bench, run_id) for run_id in held] == ["held", "ready", "held"]


def published(bench: Bench, name: str, *, held: bool) -> GraphVersion:
    version = bench.publish(graph(ONE, name=name))
    if held:
        pause_graph(bench.connection, TENANT, GraphId(version.graph_id))
    return version


def test_no_run_is_lost_whoever_does_what_to_it_at_once(bench: Bench) -> None:
    """Threads pause, resume and cancel the runs that a worker claims, executes and hands back."""
    nodes = {
        "a": value(1),
        "wait": {"type": "work.sleep", "needs": ["a"], "with": {"seconds": 0.1}},
    }
    version = bench.publish(graph(nodes, concurrency={"limit": 5}))
    runs = bench.start_many(version, 30)

    def meddle(number: int) -> None:
        chance = Random(number)
        with connect(bench.settings.database_url) as connection:
            for _ in range(120):
                (change,) = chance.choices([pause, resume, cancel], [10, 20, 1])
                with suppress(Conflict):
                    change(connection, bench.storage.writer, TENANT, chance.choice(runs))

    with bench.worker(leave_seconds=0.02), ThreadPoolExecutor(4) as threads:
        list(threads.map(meddle, range(4)))
        for run_id in runs:
            with suppress(Conflict):
                go_on(bench, run_id)
        ends = [bench.wait_for(run_id)["status"] for run_id in runs]
    assert set(ends) == {"succeeded", "cancelled"}
    for run_id in runs:
        kinds = [kind for kind, _ in bench.events(run_id)]
        assert sum(kind in ("PIPELINE_SUCCESS", "PIPELINE_CANCELED") for kind in kinds) == 1
