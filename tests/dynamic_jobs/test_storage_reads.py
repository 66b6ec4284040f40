"""A process reads what it has written, and waits for no more than that."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus

from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.storage import EventWriter, Lease, event_storage_of
from foundation.ids import RunId
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.storages import instance_over


@pytest.fixture
def instance(bench: Bench, tmp_path: Path) -> Generator[DagsterInstance]:
    with instance_over("ours", bench.settings.database_url, tmp_path) as opened:
        yield opened


@pytest.fixture
def writer(instance: DagsterInstance) -> EventWriter:
    return event_storage_of(instance).writer


def started(bench: Bench) -> RunId:
    return bench.start(bench.publish(graph({"one": value(1)})))


def append_start(writer: EventWriter, run_id: RunId) -> None:
    writer.hold(Lease(TENANT, run_id, epoch=0))
    writer.append(run_record(run_id, "job", DagsterEventType.PIPELINE_START))


def test_what_is_appended_is_seen(
    bench: Bench, instance: DagsterInstance, writer: EventWriter
) -> None:
    run_id = started(bench)
    append_start(writer, run_id)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == DagsterRunStatus.STARTED
    append_start(writer, other := started(bench))
    events = instance.all_logs(other, of_type=DagsterEventType.PIPELINE_START)
    assert len(events) == 1


def test_a_run_is_read_while_the_events_of_another_are_held_up(
    bench: Bench, instance: DagsterInstance, writer: EventWriter
) -> None:
    held_up, read = started(bench), started(bench)
    with ThreadPoolExecutor(1) as threads:
        with bench.connection.transaction():
            bench.connection.execute(
                "SELECT FROM graphwright.runs WHERE run_id = %s FOR UPDATE", (held_up,)
            )
            append_start(writer, held_up)
            run = instance.get_run_by_id(read)
            assert run is not None
            assert run.status == DagsterRunStatus.QUEUED
            assert len(instance.all_logs(read)) == 1
            waiting: Any = threads.submit(instance.get_run_by_id, held_up)
            assert writer.pending(held_up)
            assert not waiting.done()
        run = waiting.result()
        assert run is not None
        assert run.status == DagsterRunStatus.STARTED
