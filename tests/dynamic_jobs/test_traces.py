"""The trace of a run that a real worker executes, as a collector gets it."""

from collections.abc import Generator
from uuid import UUID

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.reading.runs import Run, RunStore
from foundation.database import AsyncPool
from foundation.ids import RunId
from foundation.telemetry.context import TRACEPARENT
from foundation.telemetry.tracing import tracing
from foundation.tenant_pool import TenantPool
from graph_defs.catalogue import Catalogue
from tests.collector import FakeCollector, attributes, collecting
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_worker_pool import workers

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

NODES = {"a": value(1), "b": value("${{ nodes.a.output + 1 }}", "a")}
OK, ERROR = 1, 2


@pytest.fixture
def collector() -> Generator[FakeCollector]:
    with collecting() as made:
        yield made


def start(bench: Bench, traceparent: str | None, *, traced: str = "") -> RunId:
    """A run that is asked for in a trace, by a process that sends spans to ``traced``."""
    version = bench.publish(graph(NODES))
    settings = bench.settings.model_copy(update={"otlp_endpoint": traced})
    catalogue = Catalogue.from_packages(node_types)

    async def work(pool: AsyncPool) -> RunId:
        TRACEPARENT.set(traceparent)
        with (
            tracing(settings, "api") as sending,
            NodeRuntime(settings, bench.limits, catalogue, sending) as runtime,
        ):
            tenants = TenantPool(pool)
            creator = RunCreator(pool, tenants, bench.storage, Compiler(runtime), runtime)
            return await creator.create(version, {}, {"type": "rest"}, "tester")

    return bench.with_pool(work)


def ended(bench: Bench, run_id: RunId, collector: FakeCollector) -> Span:
    """Have a worker execute the run; its span, with which all others have arrived."""
    with bench.worker(otlp_endpoint=collector.url):
        bench.wait_for(run_id)
    (run,) = collector.named("run")
    return run


def read(bench: Bench, run_id: RunId) -> Run:
    async def work(pool: AsyncPool) -> Run:
        return await RunStore(TenantPool(pool)).get(TENANT, run_id)

    return bench.with_pool(work)


def test_from_the_trigger_to_each_node(bench: Bench, collector: FakeCollector) -> None:
    run_id = start(bench, f"00-{TRACE}-{SPAN}-01", traced=collector.url)
    run = ended(bench, run_id, collector)
    (trigger,) = collector.named("trigger")
    nodes = collector.named("data.transform")
    assert {span.trace_id.hex() for _, span in collector.spans} == {TRACE}
    assert trigger.parent_span_id.hex() == SPAN
    assert run.parent_span_id == trigger.span_id
    assert {node.parent_span_id for node in nodes} == {run.span_id}
    assert sorted(str(attributes(node)["graphwright.node"]) for node in nodes) == ["a", "b"]
    assert attributes(run) == {
        "graphwright.run_id": run_id,
        "graphwright.tenant": TENANT,
        "graphwright.status": "succeeded",
    }
    assert run.status.code == OK
    assert {service for service, _ in collector.spans} == {
        "graphwright-api",
        "graphwright-worker",
    }
    assert read(bench, run_id).trace_id == TRACE


def test_a_run_that_nobody_traces_has_its_own_trace(bench: Bench, collector: FakeCollector) -> None:
    run_id = start(bench, None)
    assert bench.row(run_id)["traceparent"] is None
    run = ended(bench, run_id, collector)
    own = UUID(run_id).hex
    assert {span.trace_id.hex() for _, span in collector.spans} == {own}
    assert not run.parent_span_id
    assert read(bench, run_id).trace_id == own


def test_a_trace_goes_through_a_process_that_sends_nothing(
    bench: Bench, collector: FakeCollector
) -> None:
    run = ended(bench, start(bench, f"00-{TRACE}-{SPAN}-01"), collector)
    assert (run.trace_id.hex(), run.parent_span_id.hex()) == (TRACE, SPAN)


def test_every_attempt_is_a_span(bench: Bench, collector: FakeCollector) -> None:
    reads = {
        "type": "file.read",
        "with": {"path": "/no/such/file"},
        "retry": {"limit": 1, "delay_seconds": 0.01},
    }
    run_id = bench.start(bench.publish(graph({"a": reads, "b": value(1, "a")})))
    run = ended(bench, run_id, collector)
    attempts = collector.named("file.read")
    assert [attributes(span)["graphwright.attempt"] for span in attempts] == [1, 2]
    assert {span.status.code for span in attempts} == {ERROR}
    assert attempts[0].end_time_unix_nano <= attempts[1].start_time_unix_nano
    assert collector.named("data.transform") == [], "it was skipped"
    assert (run.status.code, run.status.message) == (ERROR, attempts[1].status.message)
    assert attributes(run)["graphwright.status"] == "failed"


def test_forked_workers_send_their_own_spans(bench: Bench, collector: FakeCollector) -> None:
    version = bench.publish(graph(NODES))
    with workers(bench, GRAPHWRIGHT_OTLP_ENDPOINT=collector.url) as running:
        runs = [bench.start(version)]
        collector.until(lambda spans: len(spans) == 1 + len(NODES))
        (child,) = running.children
        child.kill()
        running.until("is ready for")  # the parent has forked another
        runs.append(bench.start(version))
        collector.until(lambda spans: len(spans) == 2 * (1 + len(NODES)))
        running.process.terminate()
        assert running.ended() == 0, running.lines
    told = {span.trace_id.hex() for span in collector.named("run")}
    assert told == {UUID(run).hex for run in runs}


def test_a_run_that_leaves_its_worker_is_one_span(bench: Bench, collector: FakeCollector) -> None:
    sleeps = {"type": "work.sleep", "with": {"seconds": 3_600}}
    run_id = bench.start(bench.publish(graph({"a": value(1), "b": {**sleeps, "needs": ["a"]}})))
    with bench.worker(otlp_endpoint=collector.url):
        bench.wait_for(run_id, "waiting")
    bench.let_pass(run_id, 3_600)
    run = ended(bench, run_id, collector)
    assert bench.row(run_id)["epoch"] > 1, "it left, and came back"
    nodes = [*collector.named("data.transform"), *collector.named("work.sleep")]
    assert [node.parent_span_id for node in nodes] == [run.span_id] * 2
    assert run.start_time_unix_nano <= min(node.start_time_unix_nano for node in nodes)
