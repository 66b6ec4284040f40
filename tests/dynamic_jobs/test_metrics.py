"""What workers and writers count, and the queue's depth as operators see it."""

import pytest
from prometheus_client import REGISTRY

from dynamic_jobs.queueing import depth as depth_module
from dynamic_jobs.queueing.depth import QueueDepth
from foundation.ids import new_id
from foundation.settings import Settings
from tests.dynamic_jobs.conftest import Bench, graph, value


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"graphwright_{name}", labels) or 0


def test_nodes_and_runs_are_counted_by_type_and_outcome(bench: Bench) -> None:
    reads = {
        "type": "file.read",
        "with": {"path": "/no/such/file"},
        "retry": {"limit": 1, "delay_seconds": 0.01},
    }
    wanted = {
        ("file.read", "retrying"): 1,
        ("file.read", "failed"): 1,
        ("data.transform", "succeeded"): 2,
        ("data.transform", "skipped"): 1,
    }
    good = bench.publish(graph({"a": value(1)}, name="good"))
    bad = bench.publish(graph({"a": reads, "b": value(1, "a"), "c": value(1)}, name="bad"))

    def nodes() -> list[float]:
        return [counted("nodes_total", type=kind, status=end) for kind, end in wanted]

    def runs() -> list[float]:
        ends = ("succeeded", "failed", "cancelled")
        return [counted("runs_total", status=end) for end in ends]

    before, ended, took = nodes(), runs(), counted("node_seconds_count", type="file.read")
    lags = counted("event_writer_lag_seconds_count")
    with bench.worker():
        assert bench.wait_for(bench.start(good))["status"] == "succeeded"
        assert bench.wait_for(bench.start(bad))["status"] == "failed"
    assert [now - then for now, then in zip(nodes(), before, strict=True)] == [*wanted.values()]
    assert [now - then for now, then in zip(runs(), ended, strict=True)] == [1, 1, 0]
    assert counted("node_seconds_count", type="file.read") - took == 2
    assert counted("event_writer_lag_seconds_count") > lags


def depth(settings: Settings) -> dict[tuple[str, ...], float]:
    """Each sample by its name and its labels' values."""
    return {
        (sample.name.removeprefix("graphwright_queue_"), *sample.labels.values()): sample.value
        for family in QueueDepth(settings.database_url).collect()
        for sample in family.samples
    }


def test_the_queue_is_counted_by_state_and_weight(bench: Bench) -> None:
    bench.connection.execute(
        "INSERT INTO graphwright.tenants (tenant, weight) VALUES ('big', 5), ('small', NULL)"
    )
    for tenant, state, seconds in [
        ("big", "ready", 100),
        ("big", "ready", 5),
        ("small", "ready", 50),
        ("nobody", "ready", 70),
        ("small", "delayed", -60),
        ("small", "held", 500),
    ]:
        bench.connection.execute(
            "INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state, not_before)"
            " VALUES (%s, %s, %s, %s, now() - %s * interval '1 second')",
            (new_id(), tenant, new_id(), state, seconds),
        )
    found = depth(bench.settings)
    oldest = {weight: found.pop(("oldest_seconds", weight)) for weight in "15"}
    assert found == {
        ("runs", "ready", "5"): 2,
        ("runs", "ready", "1"): 2,
        ("runs", "delayed", "1"): 1,
        ("runs", "held", "1"): 1,
    }
    assert oldest["5"] >= 100
    assert 70 <= oldest["1"] < 500


def test_an_empty_queue_and_a_database_that_is_away(bench: Bench) -> None:
    assert depth(bench.settings) == {}
    away = "postgresql://nobody@127.0.0.1:1/none"
    assert depth(bench.settings.model_copy(update={"database_url": away})) == {}


def test_whoever_looks_often_asks_the_database_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depth_module, "_KEPT_SECONDS", 3_600.0)
    queue = QueueDepth(bench.settings.database_url)
    assert not [sample for family in queue.collect() for sample in family.samples]
    bench.start(bench.publish(graph({"a": value(1)})))
    assert not [sample for family in queue.collect() for sample in family.samples]
    assert depth(bench.settings)["runs", "ready", "1"] == 1
