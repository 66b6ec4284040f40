"""What the Dagster UI shows as stdout and stderr, by Dagster's own interface of compute logs."""

import logging
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, EventLogEntry
from dagster._core.storage.cloud_storage_compute_log_manager import CloudStorageComputeLogManager
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from dynamic_jobs.compute_logs import FOLDER, captured, compute_logs, logs_folder
from dynamic_jobs.workers.solo import SoloWorker
from foundation.database import connect
from foundation.ids import RunId
from foundation.object_store import object_store
from foundation.settings import Settings
from tests.dynamic_jobs.conftest import Bench, graph, value
from tests.dynamic_jobs.retention.conftest import ended_run, prune
from tests.s3 import BUCKET, CREDENTIALS, FakeS3, fake_s3

SAYS = "import os; os.write(1, b'printed\\n'); os.write(2, b'complained\\n')"


@pytest.fixture(scope="module")
def server() -> Generator[FakeS3]:
    with fake_s3() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    if request.param == "folder":
        return (tmp_path / "in a folder").as_uri()
    for name, text in CREDENTIALS.items():
        monkeypatch.setenv(name, text)
    return request.getfixturevalue("server").url(f"some%20where/{secrets.token_hex(4)}")


def opened(url: str, instance: DagsterInstance | None = None) -> Any:
    """A manager as another process has it: with nothing but what is stored."""
    manager: Any = compute_logs(url)
    if instance is not None:
        manager.register_instance(instance)
    return manager


def test_the_webserver_takes_them_for_managers_whose_logs_it_can_offer(store_url: str) -> None:
    kinds = (LocalComputeLogManager, CloudStorageComputeLogManager)
    assert isinstance(compute_logs(store_url), kinds)


def test_what_one_process_prints_is_shown_by_another(
    bench: Bench,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_OBJECT_STORE", store_url)  # which dagster.yaml names
    run_id = bench.start(bench.publish(graph({"one": value(1)})))
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        with capfd.disabled(), captured(instance, run):
            subprocess.run([sys.executable, "-c", SAYS], check=True)
        (event,) = (
            record.dagster_event
            for record in instance.all_logs(run_id)
            if record.dagster_event and record.dagster_event.event_type_value == "LOGS_CAPTURED"
        )
        assert event.logs_captured_data.step_keys == [], "so the UI offers it for all steps"
        reader = opened(store_url, instance)
        key = reader.build_log_key_for_run(run_id, event.logs_captured_data.file_key)
        found = reader.get_log_data(key)
        assert (found.stdout, found.stderr) == (b"printed\n", b"complained\n")
        assert reader.is_capture_complete(key)

    objects = object_store(store_url)
    kept = list(objects.keys(logs_folder(run_id)))
    assert {Path(name).suffix for name in kept} >= {".out", ".err"}
    objects.delete(kept)  # as retention does
    objects.close()


def execute_alone(bench: Bench, isolation: str = "process") -> RunId:
    """Execute a run by the worker that it would have to itself."""
    run_id = bench.start(bench.publish(graph({"one": value(1)}, isolation=isolation)))
    state = "solo" if isolation == "warm" else "placed"
    bench.connection.execute(
        "UPDATE graphwright.run_queue SET state = %s, admitted = true", (state,)
    )
    SoloWorker(bench.settings, bench.limits, run_id).run()
    assert bench.row(run_id)["status"] == "succeeded"
    return run_id


def test_a_worker_for_one_run_captures_it(
    bench: Bench,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_OBJECT_STORE", store_url)
    with capfd.disabled():
        run_id = execute_alone(bench)
    assert bench.events(run_id).count(("LOGS_CAPTURED", None)) == 1
    objects = object_store(store_url)
    kept = {Path(name).suffix for name in objects.keys(logs_folder(run_id))}
    assert kept - {".complete"} == {".out", ".err"}
    objects.close()


def test_a_warm_run_that_is_executed_alone_is_not_captured(bench: Bench) -> None:
    """It is, after workers were lost with it; retention looks for nothing of warm runs."""
    run_id = execute_alone(bench, "warm")
    assert ("LOGS_CAPTURED", None) not in bench.events(run_id)


@pytest.mark.parametrize("fails", ["at its beginning", "at its end"])
def test_a_capture_that_fails_does_not_fail_the_run(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
    fails: str,
) -> None:
    if fails == "at its beginning":
        (tmp_path / FOLDER).write_text("no folder")
        url, told = tmp_path.as_uri(), "is not kept"
    else:
        for name, text in CREDENTIALS.items():
            monkeypatch.setenv(name, text)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        server: FakeS3 = request.getfixturevalue("server")
        url, told = server.url("x").replace(BUCKET, "missing"), "may not be kept"
    monkeypatch.setenv("GRAPHWRIGHT_OBJECT_STORE", url)
    with capfd.disabled():
        execute_alone(bench)
    assert told in caplog.text


def test_what_was_captured_goes_with_its_run(settings: Settings, store_url: str) -> None:
    settings = settings.model_copy(update={"object_store": store_url})
    old, young, warm = (ended_run(settings, days).run_id for days in (31, 29, 31))
    with connect(settings.database_url) as connection:
        connection.execute(
            "UPDATE graphwright.runs SET isolation = 'process' WHERE run_id = ANY(%s)",
            ([old, young],),
        )
    objects = object_store(store_url)
    for run_id in (old, young, warm):
        objects.put(f"{logs_folder(run_id)}/compute_logs/process-1.err", b"printed")
    assert prune(settings).objects == 1
    found = {key.removesuffix("/compute_logs/process-1.err") for key in objects.keys(FOLDER)}
    # Nobody looks for those of warm runs, which have none.
    assert found == {logs_folder(young), logs_folder(warm)}
    objects.close()


def test_nodes_of_warm_runs_show_the_lines_that_they_logged(bench: Bench, store_url: str) -> None:
    run_id = bench.start(bench.publish(graph({"one": value(1), "two": value(2)})))
    other = bench.start(bench.publish(graph({"one": value(1)}, name="other")))
    with DagsterInstance.get() as instance:
        manager = opened(store_url, instance)
        for number, (of, node) in enumerate(
            [(run_id, "one"), (run_id, "two"), (other, "one"), (run_id, "one")]
        ):
            instance.handle_new_event(_logged(of, node, f"line {number}"))
        key = manager.build_log_key_for_run(run_id, "one")
        assert not manager.is_capture_complete(key), "it is still queued"
        whole = manager.get_log_data(key)
        assert whole.stdout is None
        assert whole.stderr.decode().splitlines() == [
            "2026-01-01 00:00:00.250+00:00 WARNING line 0",
            "2026-01-01 00:00:00.250+00:00 WARNING line 3",
        ]

        first = manager.get_log_data(key, max_bytes=1)
        assert first.stderr.endswith(b"line 0\n"), "in whole lines"
        rest = manager.get_log_data(key, cursor=first.cursor)
        assert first.stderr + rest.stderr == whole.stderr
        assert manager.get_log_data(key, cursor=rest.cursor).stderr is None

        with bench.worker():
            bench.wait_for(run_id)
        assert manager.is_capture_complete(key)
        assert manager.get_log_data(key).stderr == whole.stderr, "its own lines, and no others"


def test_a_tick_makes_no_file(store_url: str) -> None:
    manager = opened(store_url)
    with manager.open_log_stream(["graphwright", "timers", "1"], ComputeIOType.STDERR) as stream:
        assert stream is None


def _logged(run_id: str, node: str, text: str) -> EventLogEntry:
    at = datetime(2026, 1, 1, 0, 0, 0, 250_000, UTC).timestamp()
    return EventLogEntry(
        error_info=None,
        level=logging.WARNING,
        user_message=text,
        run_id=run_id,
        timestamp=at,
        step_key=node,
        job_name="job",
    )
