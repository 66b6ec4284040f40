"""Users' JSON must not be able to break what operators see."""

import pytest
from dagster import DagsterInstance, DagsterRun
from dagster._serdes import deserialize_value, serialize_value

from dynamic_jobs.foreign_json import RESERVED_KEYS
from foundation.errors import Invalid
from tests.dynamic_jobs.conftest import Bench, graph, value


@pytest.mark.parametrize("key", sorted(RESERVED_KEYS))
def test_dagster_takes_the_key_for_its_own(key: str) -> None:
    config = {"params": {key: [["a", 1]] if key == "__mapping_items__" else "Foo.BAR"}}
    run = DagsterRun(job_name="job", run_config=config)
    try:
        read = deserialize_value(serialize_value(run), DagsterRun)
    except Exception:
        return  # unreadable: as bad as expected
    assert read.run_config != config


@pytest.mark.parametrize("key", sorted(RESERVED_KEYS))
def test_such_params_are_refused_by_name(bench: Bench, key: str) -> None:
    version = bench.publish(graph({"one": value(1)}, params={"type": "object"}))
    with pytest.raises(Invalid) as caught:
        bench.start(version, {"deep": [{key: 1}]})
    assert [(fault.pointer, fault.code) for fault in caught.value.faults] == [
        (f"/params/deep/0/{key}", "reserved_name")
    ]


def test_such_outputs_are_stored_but_not_shown(bench: Bench) -> None:
    document = graph(
        {"one": value({"__class__": "Foo"})}, outputs={"it": "${{ nodes.one.output }}"}
    )
    run_id = bench.start(bench.publish(document))
    with bench.worker():
        row = bench.wait_for(run_id)
    assert row["outputs"] == {"it": {"__class__": "Foo"}}
    with DagsterInstance.get() as instance:
        assert instance.all_logs(run_id)
        assert instance.get_runs()
