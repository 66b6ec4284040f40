"""Large outputs in the object store, with a real worker: kept, read back, away, lost."""

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from dagster import DagsterInstance
from dagster._core.execution.api import create_execution_plan
from dagster._core.snap import create_execution_plan_snapshot_id, snapshot_from_execution_plan
from psycopg.types.json import Jsonb

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.outputs import (
    ADOPT,
    OutputLost,
    OutputNotStored,
    OutputStore,
    adopt_outputs,
    read_outputs,
)
from dynamic_jobs.storage.outputs import ObjectRef, Stored, insert_outputs
from foundation.database import connect
from foundation.ids import NodeId, RunId, new_id
from foundation.object_store import ObjectStoreAway, object_store
from foundation.settings import Limits, Settings
from graph_defs.versions import GraphVersion
from live_api.identity import SCOPES, issue_token, signing_key
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.test_parity import run_fast, run_stock
from tests.live_api.conftest import serving
from tests.s3 import CREDENTIALS, FakeS3, fake_s3

LARGE = "é" * 2**19  # 1 MiB of JSON, and two quotes
READS_LARGE = value("${{ size(nodes.one.output) }}", "one")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Generator[FakeS3]:
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    with fake_s3() as server:
        yield server


def keys(settings: Settings) -> list[str]:
    store = object_store(settings.objects_url)
    found = list(store.keys("outputs"))
    store.close()
    return found


def rows(bench: Bench, run_id: RunId) -> dict[str, Any]:
    found = bench.connection.execute(
        "SELECT node, value, object_key, bytes FROM graphwright.node_outputs WHERE run_id = %s",
        (run_id,),
    )
    return {row.pop("node"): row for row in found}


def kinds(bench: Bench, run_id: RunId, node: str = "one") -> list[str | None]:
    return [kind for kind, step in bench.events(run_id) if step == node]


def downloaded(settings: Settings, run_id: RunId, node: str = "one") -> httpx.Response:
    """A node's output, from an API process."""
    token = issue_token(signing_key(settings.state), TENANT, "ann", SCOPES, 3_600)
    with serving(settings, Limits()) as url:
        return httpx.get(
            f"{url}/api/v1/runs/{run_id}/nodes/{node}/output",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )


def block(settings: Settings) -> Path:
    """Take the folder of objects away: a file is in its place, which stops even root."""
    folder = settings.state / "objects"
    if folder.exists():
        folder.rename(folder.with_name("aside"))
    folder.write_text("in the way")
    return folder


@pytest.mark.parametrize("how", [run_fast, run_stock])
def test_a_large_output_is_an_object_and_a_small_one_a_row(bench: Bench, how: Any) -> None:
    run_id = how(bench, bench.publish(graph({"one": value(LARGE), "two": READS_LARGE})))
    assert bench.row(run_id)["status"] == "succeeded"
    (key,) = keys(bench.settings)
    assert key.startswith(f"outputs/{TENANT}/{run_id}/one/")
    assert rows(bench, run_id) == {
        "one": {"value": None, "object_key": key, "bytes": 2**20 + 2},
        "two": {"value": str(2**19), "object_key": None, "bytes": None},
    }
    answer = downloaded(bench.settings, run_id)
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == orjson.dumps(LARGE)


def test_an_output_goes_to_the_store_from_one_byte_past_the_bound(bench: Bench) -> None:
    run_id = bench.start(bench.publish(graph({"at": value("x" * 98), "past": value("x" * 99)})))
    with bench.worker(inline_output_bytes=100):
        assert bench.wait_for(run_id)["status"] == "succeeded"
    found = rows(bench, run_id)
    assert (found["at"]["bytes"], found["past"]["bytes"]) == (None, 101)


def test_a_node_in_a_thread_keeps_its_output_too(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text(LARGE, "utf-8")
    read = {"type": "file.read", "with": {"path": "large.txt"}}
    run_id = bench.start(bench.publish(graph({"one": read})))
    with bench.worker(file_roots=(tmp_path,)):
        assert bench.wait_for(run_id)["status"] == "succeeded"
    assert downloaded(bench.settings, run_id).json() == {"text": LARGE}
    assert len(keys(bench.settings)) == 1


def waiting_run(bench: Bench) -> RunId:
    """A run that has made its large output, and has left its worker, which is gone."""
    pause = {"type": "work.sleep", "needs": ["one"], "with": {"seconds": 3_600}}
    reads = value("${{ size(nodes.one.output) }}", "pause")
    version = bench.publish(graph({"one": value(LARGE), "pause": pause, "two": reads}))
    run_id = bench.start(version)
    with bench.worker():
        bench.wait_for(run_id, "waiting")
    bench.let_pass(run_id, 3_600)
    return run_id


def test_a_worker_that_resumes_reads_it_back(bench: Bench) -> None:
    run_id = waiting_run(bench)
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "succeeded"
    assert rows(bench, run_id)["two"]["value"] == str(2**19)
    assert kinds(bench, run_id).count("STEP_START") == 1


def test_a_run_whose_output_is_lost_fails_and_says_which(bench: Bench) -> None:
    run_id = waiting_run(bench)
    store = object_store(bench.settings.objects_url)
    (key,) = store.keys("outputs")
    store.delete([key])
    store.put("outputs/other", b"1")  # the store itself is there
    with bench.worker():
        row = bench.wait_for(run_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "output_lost")
    assert key in row["error"]["hint"]
    answer = downloaded(bench.settings, run_id)
    assert (answer.status_code, answer.json()["code"]) == (500, "output_lost")


def test_a_run_that_resumes_waits_for_a_store_that_is_away(bench: Bench) -> None:
    run_id = waiting_run(bench)
    folder = block(bench.settings)
    with bench.worker():
        bench.wait_for(run_id, "queued")  # the worker has handed it back
    answer = downloaded(bench.settings, run_id)
    assert (answer.status_code, answer.json()["code"]) == (503, "object_store_unavailable")
    folder.unlink()
    folder.with_name("aside").rename(folder)
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "succeeded"


def test_an_output_that_cannot_be_kept_fails_its_node_and_leaves_nothing(bench: Bench) -> None:
    folder = block(bench.settings)
    run_id = bench.start(bench.publish(graph({"one": value(LARGE), "two": READS_LARGE})))
    with bench.worker():
        row = bench.wait_for(run_id)
    assert (row["status"], row["error"]["code"]) == ("failed", "output_not_stored")
    assert row["error"]["node"] == "one"
    assert str(folder) in row["error"]["hint"]
    assert kinds(bench, run_id) == ["STEP_START", "STEP_FAILURE"]
    assert rows(bench, run_id) == {}
    folder.unlink()
    assert keys(bench.settings) == []


def test_a_retry_keeps_the_output_once_the_store_is_back(bench: Bench) -> None:
    folder = block(bench.settings)
    retried = {**value(LARGE), "retry": {"limit": 3, "delay_seconds": 1_800}}
    run_id = bench.start(bench.publish(graph({"one": retried, "two": READS_LARGE})))
    with bench.worker():
        bench.wait_for(run_id, "waiting")
    assert "STEP_UP_FOR_RETRY" in kinds(bench, run_id)
    folder.unlink()
    bench.let_pass(run_id, 3_600)
    with bench.worker():
        assert bench.wait_for(run_id)["status"] == "succeeded"
    assert rows(bench, run_id)["one"]["object_key"] in keys(bench.settings)
    assert kinds(bench, run_id).count("STEP_SUCCESS") == 1


def test_runs_over_s3(bench: Bench, s3: FakeS3) -> None:
    settings = bench.settings.model_copy(update={"object_store": s3.url("here")})
    version = bench.publish(graph({"one": value(LARGE), "two": READS_LARGE}))
    run_id = bench.start(version)
    with bench.worker(object_store=settings.object_store):
        assert bench.wait_for(run_id)["status"] == "succeeded"
        assert keys(settings) == [rows(bench, run_id)["one"]["object_key"]]
        assert downloaded(settings, run_id).content == orjson.dumps(LARGE)
        s3.stop()
        late = bench.start(version)
        row = bench.wait_for(late)
    assert (row["status"], row["error"]["code"]) == ("failed", "output_not_stored")
    assert rows(bench, late) == {}
    assert not (settings.state / "objects").exists()


def test_a_slow_store_holds_up_no_other_run(bench: Bench, s3: FakeS3) -> None:
    large = bench.publish(graph({"one": value(LARGE)}, name="large"))
    small = bench.publish(graph({"one": value(1)}, name="small"))
    with bench.worker(object_store=s3.url("here")):
        os.kill(s3.process.pid, signal.SIGSTOP)
        try:
            slow = bench.start(large)
            deadline = time.monotonic() + 60
            while "STEP_START" not in kinds(bench, slow):
                assert time.monotonic() < deadline, bench.row(slow)
                time.sleep(0.01)
            assert bench.wait_for(bench.start(small))["status"] == "succeeded"
            assert kinds(bench, slow) == ["STEP_START"]
        finally:
            os.kill(s3.process.pid, signal.SIGCONT)
        assert bench.wait_for(slow)["status"] == "succeeded"


def rerun_of_two(bench: Bench, version: GraphVersion, parent: RunId) -> RunId:
    """A queued run of the node ``two`` alone, as Dagster re-executes part of a run."""
    run_id = bench.start(version)
    job = Compiler(bench.runtime).compile(version).job
    plan = create_execution_plan(job, step_keys_to_execute=["two"])
    snapshot = snapshot_from_execution_plan(plan, job.get_job_snapshot_id())
    with DagsterInstance.get() as instance:
        instance.run_storage.add_execution_plan_snapshot(snapshot)
    changes = {
        "step_keys_to_execute": ["two"],
        "execution_plan_snapshot_id": create_execution_plan_snapshot_id(snapshot),
        "parent_run_id": parent,
        "root_run_id": parent,
    }
    bench.connection.execute(
        "UPDATE runs SET run_body = (run_body::jsonb || %s)::text WHERE run_id = %s",
        (Jsonb(changes), run_id),
    )
    bench.connection.execute(
        "UPDATE graphwright.runs SET parent_run_id = %s WHERE run_id = %s", (parent, run_id)
    )
    return run_id


def test_a_rerun_of_a_part_reads_its_parents_object(bench: Bench) -> None:
    version = bench.publish(graph({"one": value(LARGE), "two": READS_LARGE}))
    parent = run_fast(bench, version)
    (key,) = keys(bench.settings)
    rerun = rerun_of_two(bench, version, parent)
    with bench.worker():
        row = bench.wait_for(rerun)
    assert row["status"] == "succeeded", row["error"]
    assert kinds(bench, rerun) == []
    assert rows(bench, rerun)["one"]["object_key"] == key
    assert rows(bench, rerun)["two"]["value"] == str(2**19)
    assert keys(bench.settings) == [key]


def test_a_rerun_of_a_part_says_that_its_parents_object_is_lost(bench: Bench) -> None:
    version = bench.publish(graph({"one": value(LARGE), "two": READS_LARGE}))
    parent = run_fast(bench, version)
    (bench.settings.state / "objects" / keys(bench.settings)[0]).unlink()
    rerun = rerun_of_two(bench, version, parent)
    with bench.worker():
        row = bench.wait_for(rerun)
    assert (row["status"], row["error"]["code"]) == ("failed", "output_lost")


def test_a_rerun_names_its_parents_object(bench: Bench) -> None:
    parent, rerun, node = RunId(new_id()), RunId(new_id()), NodeId("one")
    store = OutputStore(object_store(bench.settings.objects_url), 10)
    ref = store.put(TENANT, parent, node, "[1,2]")
    small = NodeId("two")
    insert_outputs(bench.connection, {(TENANT, parent, node): ref, (TENANT, parent, small): "[3]"})
    with bench.connection.transaction(), connect(bench.settings.database_url) as other:
        adopt_outputs(bench.connection, TENANT, parent, rerun, [node, small])
        other.execute("SET lock_timeout = '1ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):  # retention sees both rows or neither
            other.execute("DELETE FROM graphwright.node_outputs WHERE run_id = %s", (parent,))
    found = read_outputs(bench.connection, store, TENANT, rerun, [node, small])
    assert found == {"one": [1, 2], "two": [3]}
    assert keys(bench.settings) == [ref.key]


def test_each_attempt_has_an_object_of_its_own(bench: Bench) -> None:
    run_id, node = RunId(new_id()), NodeId("one")
    store = OutputStore(object_store(bench.settings.objects_url), 10)
    first, second = (store.put(TENANT, run_id, node, text) for text in ("[1]", "[2]"))
    assert (store.get(first), store.get(second)) == (b"[1]", b"[2]")
    given: list[tuple[Stored, list[int]]] = [(first, [1]), ("[3]", [3]), (second, [2])]
    for stored, read in given:
        insert_outputs(bench.connection, {(TENANT, run_id, node): stored})
        assert read_outputs(bench.connection, store, TENANT, run_id, [node]) == {node: read}


def test_an_object_that_is_cut_short_is_lost(bench: Bench) -> None:
    store = OutputStore(object_store(bench.settings.objects_url), 10)
    ref = store.put(TENANT, RunId(new_id()), NodeId("one"), "[1,2]")
    (bench.settings.state / "objects" / ref.key).write_bytes(b"[1")
    with pytest.raises(OutputLost):
        store.get(ref)


def test_errors_of_a_store_that_is_away(bench: Bench) -> None:
    store = OutputStore(object_store(bench.settings.objects_url), 10)
    block(bench.settings)
    with pytest.raises(OutputNotStored, match="the output of one, 5 bytes, cannot be kept"):
        store.put(TENANT, RunId(new_id()), NodeId("one"), "[1,2]")
    with pytest.raises(ObjectStoreAway):
        store.get(ObjectRef("outputs/a", 1))


def test_objects_are_looked_up_by_their_index(bench: Bench) -> None:
    bench.connection.execute(
        "INSERT INTO graphwright.node_outputs (tenant, run_id, node, object_key, bytes)"
        " SELECT %s, md5(n::text)::uuid, 'one', 'outputs/' || n, 1"
        " FROM generate_series(1, 20000) n",
        (TENANT,),
    )
    bench.connection.execute("ANALYZE graphwright.node_outputs")
    named = (
        "SELECT FROM graphwright.node_outputs WHERE tenant = %(tenant)s AND object_key = %(key)s"
    )
    given: list[tuple[Any, dict[str, Any]]] = [
        (named, {"tenant": TENANT, "key": "outputs/1"}),
        (ADOPT, {"tenant": TENANT, "run_id": new_id(), "parent": new_id(), "nodes": ["one"]}),
    ]
    for statement, values in given:
        plan = bench.connection.execute("EXPLAIN " + statement, values).fetchall()
        assert not any("Seq Scan" in row["QUERY PLAN"] for row in plan), plan
