"""Running a run again, by our API and as the Dagster UI asks for it."""

import asyncio
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun
from hypothesis import given
from hypothesis import strategies as st

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.controlling.rerunning import Again, rerun, unfinished, with_downstream
from dynamic_jobs.creating.idempotency import KeyReused
from dynamic_jobs.creating.launching import RunCreator, Started
from dynamic_jobs.reading.runs import Run, RunStore
from foundation.database import AsyncPool
from foundation.errors import Conflict, Invalid, NotFound
from foundation.ids import NodeId, RunId, TenantId
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_executor import Gate, kinds, more_node_types

__all__ = ["more_node_types"]

PARAMS = {
    "type": "object",
    "properties": {"by": {"type": "integer", "default": 1}, "n": {"type": "integer", "default": 1}},
}
DOCUMENT = graph(
    {
        "first": value("${{ params.n }}"),
        "second": value("${{ nodes.first.output / params.by }}", "first"),
        "third": value("${{ nodes.second.output + 1 }}", "second"),
        "aside": value("${{ params.n }}"),
        "tidy": {**value("${{ nodes.second.status }}", "second"), "when": "always"},
    },
    params=PARAMS,
    outputs={"third": "${{ nodes.third.output }}", "aside": "${{ nodes.aside.output }}"},
)


def again(
    bench: Bench, run_id: RunId, begin: str, tenant: TenantId = TENANT, **more: Any
) -> Started:
    async def work(pool: AsyncPool) -> Started:
        creator = RunCreator(
            pool, TenantPool(pool), bench.storage, Compiler(bench.runtime), bench.runtime
        )
        return await rerun(TenantPool(pool), creator, tenant, run_id, Again(begin, "ann", **more))

    return bench.with_pool(work)


def run_of(bench: Bench, run_id: RunId) -> Run:
    async def work(pool: AsyncPool) -> Run:
        return await RunStore(TenantPool(pool)).get(TENANT, run_id)

    return bench.with_pool(work)


def executed(bench: Bench, run_id: RunId) -> set[str | None]:
    return {node for kind, node in bench.events(run_id) if kind == "STEP_START"}


def as_dagster_has_it(run_id: RunId) -> DagsterRun:
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def test_from_failed_what_had_succeeded_is_kept(bench: Bench) -> None:
    parent = bench.start(bench.publish(DOCUMENT), {"by": 0, "n": 4})
    with bench.worker():
        assert bench.wait_for(parent)["status"] == "failed"
        repeated = again(bench, parent, "failed", params={"by": 2, "n": 100}).run_id
        row = bench.wait_for(repeated)
    assert row["status"] == "succeeded", row["error"]
    assert row["outputs"] == {"third": 3, "aside": 4}, "kept nodes do not see the new params"
    assert (str(row["parent_run_id"]), row["author"]) == (parent, "ann")
    assert executed(bench, repeated) == {"second", "third", "tidy"}
    run = run_of(bench, repeated)
    assert {state.status for state in run.nodes.values()} == {"succeeded"}
    assert {node: state.attempt for node, state in run.nodes.items()} == {
        "first": 0, "aside": 0, "second": 1, "third": 1, "tidy": 1,
    }  # fmt: skip


def test_dagster_knows_it_as_a_re_execution(bench: Bench) -> None:
    parent = bench.start(bench.publish(DOCUMENT), {"by": 0})
    with bench.worker():
        bench.wait_for(parent)
        first = again(bench, parent, "failed").run_id
        assert bench.wait_for(first)["status"] == "failed"
        second = again(bench, first, "aside", params={"n": 7}).run_id
        assert bench.wait_for(second)["outputs"] == {"third": 2, "aside": 7}
    run, its_child = as_dagster_has_it(first), as_dagster_has_it(second)
    assert (run.parent_run_id, run.root_run_id) == (parent, parent)
    assert (its_child.parent_run_id, its_child.root_run_id) == (first, parent)
    assert run.tags["dagster/is_resume_retry"] == "true"
    assert "dagster/is_resume_retry" not in its_child.tags
    assert set(run.step_keys_to_execute or ()) == {"second", "third", "tidy"}
    with DagsterInstance.get() as instance:
        found = instance.get_run_group(second)
        assert found is not None
        assert {each.run_id for each in found[1]} == {parent, first, second}
        plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id or "")
        assert set(plan.step_keys_to_execute) == {"second", "third", "tidy"}


def test_from_a_node_it_and_what_follows_run_again(bench: Bench) -> None:
    parent = bench.start(bench.publish(DOCUMENT), {"n": 4})
    with bench.worker():
        bench.wait_for(parent)
        repeated = again(bench, parent, "second").run_id
        row = bench.wait_for(repeated)
        assert executed(bench, repeated) == {"second", "third", "tidy"}
        whole = again(bench, parent, "start", params={"n": 9}).run_id
        assert bench.wait_for(whole)["outputs"] == {"third": 10, "aside": 9}
    assert row["outputs"] == {"third": 5, "aside": 4}
    assert row["params"] == {"by": 1, "n": 4}
    assert executed(bench, whole) == set(DOCUMENT["nodes"])
    assert as_dagster_has_it(whole).step_keys_to_execute is None


@pytest.mark.parametrize("begin", ["failed", "second", "start"])
def test_what_was_kept_stays_kept_by_a_run_that_never_began(bench: Bench, begin: str) -> None:
    """It was cancelled on the queue. What it would have kept is kept by the run that repeats it."""
    parent = bench.start(bench.publish(DOCUMENT), {"by": 0, "n": 4})
    with bench.worker():
        assert bench.wait_for(parent)["status"] == "failed"
    cancelled = again(bench, parent, "failed", params={"by": 2}).run_id
    cancel(bench.connection, bench.storage.writer, TENANT, cancelled)
    if begin == "failed":  # the Dagster UI's way
        steps = unfinished(bench.connection, TENANT, cancelled, DOCUMENT)
        assert set(steps) == {"second", "third", "tidy"}
    repeated = again(bench, cancelled, begin, params={"by": 2, "n": 100}).run_id
    with bench.worker():
        row = bench.wait_for(repeated)
    assert row["status"] == "succeeded", row["error"]
    again_all = begin == "start"
    assert executed(bench, repeated) == (
        set(DOCUMENT["nodes"]) if again_all else {"second", "third", "tidy"}
    )
    assert row["outputs"] == (
        {"third": 51, "aside": 100} if again_all else {"third": 3, "aside": 4}
    )


def test_what_cannot_be_run_again_is_refused(bench: Bench) -> None:
    run_id = bench.start(bench.publish(DOCUMENT))
    with pytest.raises(Conflict, match="not ended: queued"):
        again(bench, run_id, "start")
    with bench.worker():
        bench.wait_for(run_id)
    with pytest.raises(Conflict, match="succeeded"):
        again(bench, run_id, "failed")
    with pytest.raises(Invalid) as refused:
        again(bench, run_id, "secnod")
    (fault,) = refused.value.faults
    assert (fault.pointer, fault.hint) == ("/from", "Did you mean `second`?")
    with pytest.raises(Invalid, match="params"):
        again(bench, run_id, "start", params={"n": "many"})
    with pytest.raises(NotFound):
        again(bench, run_id, "start", tenant=TenantId("other"))


def test_a_repeated_key_is_the_same_run(bench: Bench) -> None:
    run_id = bench.start(bench.publish(DOCUMENT))
    cancel(bench.connection, bench.storage.writer, TENANT, run_id)
    one = again(bench, run_id, "start", idempotency_key="k")
    assert again(bench, run_id, "start", idempotency_key="k") == Started(one.run_id, replayed=True)
    with pytest.raises(KeyReused):
        again(bench, run_id, "second", idempotency_key="k")


def test_a_part_of_a_graph_survives_the_loss_of_its_worker(bench: Bench) -> None:
    with Gate() as gate:
        nodes = {"kept": value(5), "slow": {**gate.node, "needs": ["kept"]}}
        parent = bench.start(bench.publish(graph(nodes, outputs={"x": "${{ nodes.kept.output }}"})))
        with bench.worker(http_private=True):
            gate.asked(1)
            gate.answer(404)
            assert bench.wait_for(parent)["status"] == "failed"
        repeated = again(bench, parent, "failed").run_id
        with bench.worker(http_private=True, drain_seconds=0):
            gate.asked(2)
        gate.answer(200)  # to the one that was cut off
        with bench.worker(http_private=True):
            gate.asked(3)
            gate.answer(200)
            row = bench.wait_for(repeated)
    assert (row["status"], row["outputs"]) == ("succeeded", {"x": 5}), row["error"]
    assert kinds(bench, repeated, "kept") == []


@given(st.data())
def test_what_runs_again_has_nothing_behind_it_that_does_not(data: st.DataObject) -> None:
    """Whatever is downstream of a node that runs again runs again; nothing else does."""
    names = [NodeId(f"n{n}") for n in range(data.draw(st.integers(1, 8)))]
    needs = {
        name: tuple(data.draw(st.sets(st.sampled_from(names[:n])))) if n else ()
        for n, name in enumerate(names)
    }
    done = data.draw(st.sets(st.sampled_from(names)))
    beside = data.draw(st.sets(st.sampled_from(names), max_size=1))
    chosen = with_downstream(needs, without=done, beside=beside)
    for name in names:
        expected = name not in done or name in beside or any(n in chosen for n in needs[name])
        assert (name in chosen) is expected
    assert len(set(chosen)) == len(chosen)


def test_many_repeat_one_run_at_once(bench: Bench) -> None:
    run_id = bench.start(bench.publish(DOCUMENT), {"by": 0})

    async def work(pool: AsyncPool) -> list[Started]:
        creator = RunCreator(
            pool, TenantPool(pool), bench.storage, Compiler(bench.runtime), bench.runtime
        )
        each = (
            rerun(TenantPool(pool), creator, TENANT, run_id, Again("failed", "ann", {"by": 1}))
            for _ in range(20)
        )
        return await asyncio.gather(*each)

    with bench.worker():
        bench.wait_for(run_id)
        for started in bench.with_pool(work):
            assert bench.wait_for(started.run_id)["status"] == "succeeded"
