"""Dagster's step events, built directly: complete, and without a logging round trip for each.

They equal what ``DagsterEvent.from_step`` makes of a step context; a contract test compares them
with stock Dagster's (tests/dynamic_jobs/test_parity.py).
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    EventLogEntry,
    MetadataValue,
)
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import EngineEventData, HandledOutputData, StepMaterializationData
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.execution.plan.objects import (
    StepFailureData,
    StepRetryData,
    StepSuccessData,
    TypeCheckData,
    UserFailureData,
)
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle
from dagster._utils.error import SerializableErrorInfo
from dagster_shared.utils.timing import format_duration

from dynamic_jobs.reading.events import (
    ATTEMPT_TAG,
    HANDLED_LABEL,
    RUN_LABEL,
    WAITING_LABEL,
)
from foundation.errors import GraphwrightError

_UNDER_WAY: Final = DagsterEventType.ENGINE_EVENT


@dataclass(frozen=True, slots=True)
class StepEvent:
    """What tells one step event from another; :meth:`entry` adds whose it is."""

    kind: DagsterEventType
    message: str
    data: Any = None
    level: int = logging.DEBUG

    def entry(
        self, *, job: str, run: str, node: str, time: float, pid: int, attempt: int = 1
    ) -> EventLogEntry:
        """The row of the event log. ``time`` is in seconds since 1970."""
        handle = NodeHandle(name=node, parent=None)
        tags = {
            "job_name": job,
            "op_name": node,
            "resource_fn_name": "None",
            "resource_name": "None",
            "run_id": run,
            "step_key": node,
        }
        event = DagsterEvent(
            event_type_value=self.kind.value,
            job_name=job,
            step_handle=StepHandle(node_handle=handle),
            node_handle=handle,
            step_kind_value="COMPUTE",
            logging_tags=tags if attempt == 1 else {**tags, ATTEMPT_TAG: str(attempt)},
            event_specific_data=self.data,
            message=self.message,
            pid=pid,
        )
        return EventLogEntry(
            error_info=None,
            level=self.level,
            user_message=self.message,
            run_id=run,
            timestamp=time,
            step_key=node,
            job_name=job,
            dagster_event=event,
        )


def started(node: str) -> StepEvent:
    return StepEvent(DagsterEventType.STEP_START, f'Started execution of step "{node}".')


def restarted(node: str, attempt: int) -> StepEvent:
    message = f'Started re-execution (attempt # {attempt}) of step "{node}".'
    return StepEvent(DagsterEventType.STEP_RESTARTED, message)


def output(node: str) -> StepEvent:
    data = StepOutputData(
        StepOutputHandle(node, "result"),
        type_check_data=TypeCheckData(success=True, label="result"),
    )
    message = 'Yielded output "result" of type "Any". (Type check passed).'
    return StepEvent(DagsterEventType.STEP_OUTPUT, message, data)


def handled(size: int, **shown: MetadataValue[Any]) -> StepEvent:
    """The output is stored: it has ``size`` bytes as JSON, and ``shown`` may show it."""
    data = HandledOutputData(
        output_name="result",
        manager_key="io_manager",
        metadata={"bytes": MetadataValue.int(size), **shown},
    )
    message = 'Handled output "result" using IO manager "io_manager"'
    return StepEvent(DagsterEventType.HANDLED_OUTPUT, message, data)


def succeeded(node: str, milliseconds: float, duration: str = "") -> StepEvent:
    """``duration`` is the time in words, where it is not to be Dagster's."""
    words = duration or format_duration(milliseconds)
    message = f'Finished execution of step "{node}" in {words}.'
    return StepEvent(DagsterEventType.STEP_SUCCESS, message, StepSuccessData(milliseconds))


def failed(node: str, error: GraphwrightError, *, handled: bool = False) -> StepEvent:
    """The failure, with the error's code and hint; ``handled`` if the run goes on all the same."""
    data = StepFailureData(
        error=_error_info(error), user_failure_data=failure_data(error, handled=handled)
    )
    message = f'Execution of step "{node}" failed.'
    if handled:
        message += " The run goes on, for the node says `continue_on_error`."
    return StepEvent(DagsterEventType.STEP_FAILURE, message, data, logging.ERROR)


def retrying(node: str, error: GraphwrightError, seconds: float) -> StepEvent:
    """It failed, and will be tried again in ``seconds``."""
    wait = f" in {seconds:g} seconds" if seconds else ""
    message = f'Execution of step "{node}" failed and has requested a retry{wait}.'
    data = StepRetryData(error=_error_info(error), seconds_to_wait=seconds)
    return StepEvent(DagsterEventType.STEP_UP_FOR_RETRY, message, data)


def skipped(node: str) -> StepEvent:
    return StepEvent(DagsterEventType.STEP_SKIPPED, f'Skipped execution of step "{node}".')


def waiting(until: datetime) -> StepEvent:
    """The node does nothing until then. Dagster has no type of its own for that."""
    data = EngineEventData(metadata={WAITING_LABEL: MetadataValue.timestamp(until)})
    return StepEvent(_UNDER_WAY, f"Waiting until {until.isoformat()}.", data)


def run_paused(run: str, job: str) -> EventLogEntry:
    """The run rests until somebody resumes it. Dagster has no type of its own for that."""
    return _remark(run, job, "paused", "The run is paused.")


def run_resumed(run: str, job: str) -> EventLogEntry:
    """A run that was paused before it had started is queued again.

    Dagster's own event for that says that a run has started.
    """
    return _remark(run, job, "resumed", "The run is queued again.")


def _remark(run: str, job: str, standing: str, message: str) -> EventLogEntry:
    event = DagsterEvent(
        event_type_value=_UNDER_WAY.value,
        job_name=job,
        event_specific_data=EngineEventData(metadata={RUN_LABEL: MetadataValue.text(standing)}),
        message=message,
    )
    return EventLogEntry(
        error_info=None,
        level=logging.INFO,
        user_message=message,
        run_id=run,
        timestamp=time.time(),
        job_name=job,
        dagster_event=event,
    )


def materialized(key: Sequence[str], metadata: Mapping[str, Any]) -> StepEvent:
    """The node wrote an asset."""
    asset = AssetKey(list(key))
    data = StepMaterializationData(AssetMaterialization(asset_key=asset, metadata=metadata))
    message = f"Materialized value {' '.join(key)}."
    return StepEvent(DagsterEventType.ASSET_MATERIALIZATION, message, data)


def failure_data(error: GraphwrightError, *, handled: bool = False) -> UserFailureData:
    """Our error, as a Dagster failure shows it; ``code`` and ``hint`` are metadata."""
    return UserFailureData(
        label="intentional-failure",
        description=error.message,
        metadata={
            "code": MetadataValue.text(error.code),
            **({"hint": MetadataValue.text(error.hint)} if error.hint else {}),
            **({HANDLED_LABEL: MetadataValue.bool(True)} if handled else {}),
        },
    )


def _error_info(error: GraphwrightError) -> SerializableErrorInfo:
    return SerializableErrorInfo(
        message=f"dagster.Failure: {error.message}", stack=[], cls_name=type(error).__name__
    )
