"""Asset events leave the same rows as under Dagster's own storage, and share the run's fence."""

from collections.abc import Generator
from pathlib import Path
from typing import Any, LiteralString

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    DagsterEventType,
    EventLogEntry,
    StaticPartitionsDefinition,
)
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.definitions.events import (
    AssetMaterializationFailure,
    AssetMaterializationFailureReason,
    AssetMaterializationFailureType,
)
from dagster._core.events import AssetFailedToMaterializeData, AssetWipedData
from dagster._serdes import deserialize_value

from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.storage import EventWriter, Lease, LeaseLost, event_storage_of
from dynamic_jobs.storage.publisher import Publisher
from dynamic_jobs.storage.records import Record
from foundation.database import Connection, connect
from foundation.ids import NodeId, RunId
from tests import services
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.storages import (
    check_planned,
    checked,
    entry,
    instance_over,
    materialized,
    observed,
    planned,
)

TABLES: tuple[LiteralString, ...] = (
    "SELECT id, run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"
    " FROM event_logs ORDER BY id",
    "SELECT asset_key, last_materialization, last_run_id, asset_details, wipe_timestamp,"
    " last_materialization_timestamp, tags, cached_status_data FROM asset_keys ORDER BY asset_key",
    "SELECT event_id, asset_key, key, value, event_timestamp FROM asset_event_tags"
    " ORDER BY event_id, key",
    "SELECT asset_key, check_name, partition, run_id, execution_status, evaluation_event,"
    " evaluation_event_timestamp, evaluation_event_storage_id, materialization_event_storage_id"
    " FROM asset_check_executions ORDER BY id",
)


EVENT_COLUMNS = {"event", "last_materialization", "evaluation_event"}


def rows(connection: Connection) -> list[list[dict[str, Any]]]:
    """Each table's, with the events in them as Dagster reads them."""
    return [
        [
            {
                name: deserialize_value(column) if name in EVENT_COLUMNS and column else column
                for name, column in row.items()
            }
            for row in connection.execute(statement)
        ]
        for statement in TABLES
    ]


def failed(key: str) -> EventLogEntry:
    failure = AssetMaterializationFailure(
        asset_key=AssetKey(key),
        failure_type=AssetMaterializationFailureType.FAILED,
        reason=AssetMaterializationFailureReason.FAILED_TO_MATERIALIZE,
    )
    data = AssetFailedToMaterializeData(failure, None)
    return entry(DagsterEventType.ASSET_FAILED_TO_MATERIALIZE, data)


def targeted(key: str, run: str) -> EventLogEntry:
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=3, run_id="run-1", timestamp=1.0
    )
    data = AssetCheckEvaluation(
        asset_key=AssetKey(key),
        check_name="fresh",
        passed=True,
        metadata={},
        target_materialization_data=target,
    )
    return entry(DagsterEventType.ASSET_CHECK_EVALUATION, data, run=run, at=31)


EVENTS = (
    planned("a"),
    planned("b/c", "2026-01-01", at=1),
    materialized("a", at=2, tags={DATA_VERSION_TAG: "v1", "dagster/multipartitions": "x", "z": ""}),
    materialized("b/c", "2026-01-01", at=3, tags={"dagster/partition/date": "2026-01-01"}),
    materialized("a", at=4, run="run-2", tags={DATA_VERSION_TAG: 'v2 "ü\\'}),
    observed("seen", at=5, tags={DATA_VERSION_TAG: "o1"}),
    observed("a", "p", at=6),
    planned("a", run="run-3", at=7),
    entry(DagsterEventType.STEP_START, at=8),
    failed("never"),
    entry(
        DagsterEventType.ASSET_WIPED,
        AssetWipedData(asset_key=AssetKey("wiped"), partition_keys=None),
        at=9,
    ),
    check_planned("a", "fresh", at=10),
    check_planned(
        "a",
        "whole",
        StaticPartitionsDefinition(["p", "q", "r"]).subset_with_partition_keys(["p", "q"]),
        at=11,
    ),
    checked("a", "fresh", passed=False, at=12),
    checked("a", "whole", passed=True, partition="q", at=13),
    checked("a", "unplanned", passed=True, at=14),
    checked("a", "outside", passed=True, run="", at=15),
    materialized("external", run="", at=16),
    targeted("a", "run-1"),
    targeted("a", ""),
)


def test_the_rows_are_those_of_dagsters_own_storage(
    postgres_url: str, template_database: str, tmp_path: Path
) -> None:
    with (
        services.cloned_database(postgres_url, template_database) as stock_url,
        services.cloned_database(postgres_url, template_database) as url,
        connect(stock_url) as stock_rows,
        connect(url) as our_rows,
        instance_over("stock", stock_url, tmp_path) as stock,
        instance_over("ours", url, tmp_path) as ours,
    ):
        for event in EVENTS:
            stock.event_log_storage.store_event(event)
        writer = event_storage_of(ours).writer
        writer.append(*(Record.of(event) for event in EVENTS))  # one batch
        writer.flush()
        assert rows(our_rows) == rows(stock_rows)
        again = [materialized("a", at=40), materialized("new", at=41)]
        for event in again:
            stock.event_log_storage.store_event(event)
            ours.event_log_storage.store_event(event)
        ours.event_log_storage.store_event_batch([failed("never again")])
        assert rows(our_rows) == rows(stock_rows)


@pytest.fixture
def writer(bench: Bench) -> Generator[EventWriter]:
    opened = EventWriter(bench.settings.database_url, Publisher(""))
    yield opened
    opened.close()


def test_a_lost_run_leaves_nothing_about_its_assets(bench: Bench, writer: EventWriter) -> None:
    run_id = bench.start(bench.publish(graph({"one": value(1)})))
    before = rows(bench.connection)
    writer.hold(Lease(TENANT, run_id, epoch=0))
    bench.connection.execute(
        "UPDATE graphwright.runs SET epoch = epoch + 1 WHERE run_id = %s", (run_id,)
    )
    tags = {DATA_VERSION_TAG: "1"}
    for event in (
        materialized("a", tags=tags, run=run_id),
        check_planned("a", "fresh", run=run_id),
    ):
        writer.append(Record.of(event))
    with pytest.raises(LeaseLost):
        writer.flush(run_id)
    assert rows(bench.connection) == before


def test_a_materialization_commits_with_the_nodes_output_and_success(
    bench: Bench, writer: EventWriter
) -> None:
    run_id = bench.start(bench.publish(graph({"one": value(1)})))
    writer.hold(Lease(TENANT, run_id, epoch=0))
    success = run_record(run_id, "job", DagsterEventType.PIPELINE_SUCCESS)
    writer.append(
        Record.of(materialized("a", run=run_id), output=(NodeId("one"), "1")),
        success,
    )
    writer.flush(run_id)
    together = bench.connection.execute(
        "SELECT count(DISTINCT xmin::text) AS transactions FROM ("
        " SELECT xmin FROM event_logs WHERE run_id = %(run)s AND dagster_event_type IN"
        "  ('ASSET_MATERIALIZATION', 'PIPELINE_SUCCESS')"
        " UNION ALL SELECT xmin FROM asset_keys"
        " UNION ALL SELECT xmin FROM graphwright.node_outputs WHERE run_id = %(run)s::uuid"
        " UNION ALL SELECT xmin FROM graphwright.runs WHERE run_id = %(run)s::uuid) AS written",
        {"run": RunId(run_id)},
    ).fetchone()
    assert together == {"transactions": 1}
