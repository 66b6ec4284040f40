"""Dagster's step events, built directly: complete, and without a logging round trip for each.

They equal what ``DagsterEvent.from_step`` makes of a step context; a contract test compares them
with stock Dagster's (tests/dynamic_jobs/test_parity.py).
"""

import logging
import os
import time
from typing import Any

from dagster import DagsterEvent, DagsterEventType, DagsterRun, EventLogEntry, MetadataValue
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import HandledOutputData
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.execution.plan.objects import (
    ErrorSource,
    StepFailureData,
    StepSuccessData,
    TypeCheckData,
    UserFailureData,
)
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle
from dagster._utils.error import SerializableErrorInfo
from dagster_shared.utils.timing import format_duration

from dynamic_jobs.nodes import NodeOutput
from dynamic_jobs.outputs import preview
from dynamic_jobs.storage import EventWriter
from dynamic_jobs.storage.records import Record
from foundation.errors import GraphwrightError
from foundation.ids import NodeId

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class RunLog:
    """Appends one run's step events to the writer. Safe to call from any thread."""

    def __init__(self, run: DagsterRun, writer: EventWriter) -> None:
        self._run = run
        self._writer = writer
        self._pid = os.getpid()

    def started(self, node: NodeId) -> None:
        self._append(node, DagsterEventType.STEP_START, f'Started execution of step "{node}".')

    def succeeded(self, node: NodeId, output: NodeOutput, duration_ms: float) -> None:
        """Output, its handling and the success; the stored output commits with them."""
        self._append(
            node,
            DagsterEventType.STEP_OUTPUT,
            'Yielded output "result" of type "Any". (Type check passed).',
            StepOutputData(
                StepOutputHandle(node, "result"),
                type_check_data=TypeCheckData(success=True, label="result"),
            ),
        )
        metadata = {
            key: MetadataValue.int(value) if isinstance(value, int) else MetadataValue.json(value)
            for key, value in preview(output.value, output.text).items()
        }
        self._append(
            node,
            DagsterEventType.HANDLED_OUTPUT,
            'Handled output "result" using IO manager "io_manager"',
            HandledOutputData(output_name="result", manager_key="io_manager", metadata=metadata),
        )
        self._append(
            node,
            DagsterEventType.STEP_SUCCESS,
            f'Finished execution of step "{node}" in {format_duration(duration_ms)}.',
            StepSuccessData(duration_ms=duration_ms),
            output=(node, output.text),
        )

    def failed(self, node: NodeId, error: GraphwrightError) -> DagsterEvent:
        """The failure, with the error's code and hint; Dagster's loop wants to see this event."""
        return self._append(
            node,
            DagsterEventType.STEP_FAILURE,
            f'Execution of step "{node}" failed.',
            StepFailureData(
                error=SerializableErrorInfo(
                    message=f"dagster_core.Failure: {error.message}",
                    stack=[],
                    cls_name=type(error).__name__,
                ),
                user_failure_data=failure_data(error),
                error_source=ErrorSource.USER_CODE_ERROR,
            ),
            level=logging.ERROR,
        )

    def skipped(self, node: NodeId) -> None:
        self._append(node, DagsterEventType.STEP_SKIPPED, f'Skipped execution of step "{node}".')

    def message(self, node: NodeId, level: str, text: str) -> None:
        """A line that a node logged."""
        self._writer.append(
            Record.of(
                EventLogEntry(
                    error_info=None,
                    level=_LEVELS.get(level, logging.INFO),
                    user_message=text,
                    run_id=self._run.run_id,
                    timestamp=time.time(),
                    step_key=node,
                    job_name=self._run.job_name,
                )
            )
        )

    def _append(
        self,
        node: NodeId,
        kind: DagsterEventType,
        message: str,
        data: Any = None,
        *,
        level: int = logging.DEBUG,
        output: tuple[NodeId, str] | None = None,
    ) -> DagsterEvent:
        handle = NodeHandle(name=node, parent=None)
        event = DagsterEvent(
            event_type_value=kind.value,
            job_name=self._run.job_name,
            step_handle=StepHandle(node_handle=handle),
            node_handle=handle,
            step_kind_value="COMPUTE",
            logging_tags={
                "job_name": self._run.job_name,
                "op_name": node,
                "resource_fn_name": "None",
                "resource_name": "None",
                "run_id": self._run.run_id,
                "step_key": node,
            },
            event_specific_data=data,
            message=message,
            pid=self._pid,
        )
        entry = EventLogEntry(
            error_info=None,
            level=level,
            user_message=message,
            run_id=self._run.run_id,
            timestamp=time.time(),
            step_key=node,
            job_name=self._run.job_name,
            dagster_event=event,
        )
        self._writer.append(Record.of(entry, output))
        return event


def failure_data(error: GraphwrightError) -> UserFailureData:
    """Our error, as a Dagster failure shows it; ``code`` and ``hint`` are metadata."""
    return UserFailureData(
        label="intentional-failure",
        description=error.message,
        metadata={
            "code": MetadataValue.text(error.code),
            **({"hint": MetadataValue.text(error.hint)} if error.hint else {}),
        },
    )
