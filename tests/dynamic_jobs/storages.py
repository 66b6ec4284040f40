"""Dagster's own PostgreSQL storage and ours, each under a real instance, and events for them."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    EventLogEntry,
)
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    StepMaterializationData,
)
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.instance import InstanceRef

from foundation.database import pinned

Kind = Literal["stock", "ours"]
KINDS: Final[tuple[Kind, ...]] = ("stock", "ours")

SINCE: Final = time.time() - 1_000
"""When the first event of a test happened; what it is is no matter."""


@contextmanager
def instance_over(kind: Kind, database_url: str, folder: Path) -> Generator[DagsterInstance]:
    """A Dagster instance whose storage is dagster-postgres's own, or ours."""
    config: dict[str, Any] = {
        "postgres_url": pinned(database_url),
        "should_autocreate_tables": False,
    }
    storage: dict[str, Any] = {"postgres": config}
    if kind == "ours":
        name = {"module": "dynamic_jobs.storage", "class": "GraphwrightStorage"}
        storage = {"custom": {**name, "config": config}}
    overrides = {"storage": storage, "telemetry": {"enabled": False}}
    with DagsterInstance.from_ref(
        InstanceRef.from_dir(str(folder), overrides=overrides)
    ) as instance:
        yield instance


def entry(
    kind: DagsterEventType | None = None,
    data: Any = None,
    *,
    run: str = "run-1",
    step: str | None = "one",
    at: float = 0.0,
    text: str = "",
) -> EventLogEntry:
    """An event ``at`` seconds after :data:`SINCE`; a log line if it has no kind."""
    event = None
    if kind is not None:
        event = DagsterEvent(
            kind.value,
            "job",
            step_handle=StepHandle(node_handle=NodeHandle(step, None)) if step else None,
            event_specific_data=data,
            message=text,
        )
    return EventLogEntry(
        error_info=None,
        level="INFO",
        user_message=text,
        run_id=run,
        timestamp=SINCE + at,
        step_key=step,
        job_name="job",
        dagster_event=event,
    )


def materialized(
    key: str,
    partition: str | None = None,
    tags: dict[str, str] | None = None,
    **more: Any,
) -> EventLogEntry:
    data = StepMaterializationData(
        AssetMaterialization(
            AssetKey(key.split("/")), partition=partition, tags=tags, metadata={"rows": 3}
        )
    )
    return entry(DagsterEventType.ASSET_MATERIALIZATION, data, **more)


def observed(
    key: str, partition: str | None = None, tags: dict[str, str] | None = None, **more: Any
) -> EventLogEntry:
    data = AssetObservationData(
        AssetObservation(AssetKey(key.split("/")), partition=partition, tags=tags)
    )
    return entry(DagsterEventType.ASSET_OBSERVATION, data, **more)


def planned(key: str, partition: str | None = None, **more: Any) -> EventLogEntry:
    data = AssetMaterializationPlannedData(AssetKey(key.split("/")), partition=partition)
    return entry(DagsterEventType.ASSET_MATERIALIZATION_PLANNED, data, **more)


def check_planned(key: str, check: str, subset: Any = None, **more: Any) -> EventLogEntry:
    data = AssetCheckEvaluationPlanned(
        asset_key=AssetKey(key), check_name=check, partitions_subset=subset
    )
    return entry(DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, data, **more)


def checked(
    key: str, check: str, passed: bool, partition: str | None = None, **more: Any
) -> EventLogEntry:
    data = AssetCheckEvaluation(
        asset_key=AssetKey(key), check_name=check, passed=passed, metadata={}, partition=partition
    )
    return entry(DagsterEventType.ASSET_CHECK_EVALUATION, data, **more)
