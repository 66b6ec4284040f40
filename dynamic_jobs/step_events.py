"""Dagster's step events, built directly: complete, and without a logging round trip for each.

They equal what ``DagsterEvent.from_step`` makes of a step context; a contract test compares them
with stock Dagster's (tests/dynamic_jobs/test_parity.py).
"""

import logging
import os
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

from dagster import DagsterEvent, DagsterEventType, DagsterRun, EventLogEntry, MetadataValue
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import HandledOutputData
from dagster._core.execution.plan.handle import StepHandle
from dagster._core.execution.plan.objects import (
    StepFailureData,
    StepSuccessData,
    TypeCheckData,
    UserFailureData,
)
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle
from dagster._utils.error import SerializableErrorInfo
from dagster_shared.utils.timing import format_duration

from dynamic_jobs.nodes import NodeOutput
from dynamic_jobs.outputs import is_shown
from dynamic_jobs.step_templates import (
    BYTES_MARK,
    DURATION,
    JOB,
    MILLISECONDS_MARK,
    NODE,
    PID_MARK,
    RUN,
    TIME_MARK,
    VALUE,
    StepTemplate,
)
from dynamic_jobs.storage import EventWriter
from dynamic_jobs.storage.records import Record
from foundation.errors import GraphwrightError
from foundation.ids import NodeId, RunId

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
        self._pid = str(os.getpid())

    def started(self, node: NodeId) -> None:
        self._writer.append(self._filled(_started(), node))

    def succeeded(self, node: NodeId, output: NodeOutput, duration_ms: float) -> None:
        """Output, its handling and the success; the stored output commits with them."""
        size = len(output.text.encode())
        handled = _handled_shown() if is_shown(output.text) else _handled_hidden()
        self._writer.append(
            self._filled(_output(), node),
            self._filled(handled, node, bytes=str(size), value=output.text),
            self._filled(
                _succeeded(),
                node,
                duration=format_duration(duration_ms),
                milliseconds=repr(duration_ms),
                output=output.text,
            ),
        )

    def failed(self, node: NodeId, error: GraphwrightError) -> DagsterEvent:
        """The failure, with the error's code and hint; Dagster's loop wants to see this event."""
        failure = StepFailureData(
            error=SerializableErrorInfo(
                message=f"dagster.Failure: {error.message}",
                stack=[],
                cls_name=type(error).__name__,
            ),
            user_failure_data=failure_data(error),
        )
        entry = _entry(
            DagsterEventType.STEP_FAILURE,
            f'Execution of step "{node}" failed.',
            failure,
            job=self._run.job_name,
            node=node,
            run=self._run.run_id,
            time=time.time(),
            pid=int(self._pid),
            level=logging.ERROR,
        )
        self._writer.append(Record.of(entry))
        return entry.get_dagster_event()

    def skipped(self, node: NodeId) -> None:
        self._writer.append(self._filled(_skipped(), node))

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

    def _filled(
        self, template: StepTemplate, node: NodeId, *, output: str | None = None, **slots: str
    ) -> Record:
        now = time.time()
        text = template.fill(
            job=self._run.job_name,
            node=node,
            run=self._run.run_id,
            time=repr(now),
            pid=self._pid,
            **slots,
        )
        return Record(
            run_id=RunId(self._run.run_id),
            event=text,
            event_type=template.kind.value,
            at=datetime.fromtimestamp(now, UTC),
            step_key=node,
            output=None if output is None else (node, output),
        )


def _entry(
    kind: DagsterEventType,
    message: str,
    data: Any = None,
    *,
    job: str = JOB,
    node: str = NODE,
    run: str = RUN,
    time: float = TIME_MARK,
    pid: int = PID_MARK,
    level: int = logging.DEBUG,
) -> EventLogEntry:
    handle = NodeHandle(name=node, parent=None)
    event = DagsterEvent(
        event_type_value=kind.value,
        job_name=job,
        step_handle=StepHandle(node_handle=handle),
        node_handle=handle,
        step_kind_value="COMPUTE",
        logging_tags={
            "job_name": job,
            "op_name": node,
            "resource_fn_name": "None",
            "resource_name": "None",
            "run_id": run,
            "step_key": node,
        },
        event_specific_data=data,
        message=message,
        pid=pid,
    )
    return EventLogEntry(
        error_info=None,
        level=level,
        user_message=message,
        run_id=run,
        timestamp=time,
        step_key=node,
        job_name=job,
        dagster_event=event,
    )


def _template(kind: DagsterEventType, message: str, data: Any = None) -> StepTemplate:
    return StepTemplate.of(kind, _entry(kind, message, data))


@cache
def _started() -> StepTemplate:
    return _template(DagsterEventType.STEP_START, f'Started execution of step "{NODE}".')


@cache
def _output() -> StepTemplate:
    return _template(
        DagsterEventType.STEP_OUTPUT,
        'Yielded output "result" of type "Any". (Type check passed).',
        StepOutputData(
            StepOutputHandle(NODE, "result"),
            type_check_data=TypeCheckData(success=True, label="result"),
        ),
    )


@cache
def _handled_shown() -> StepTemplate:
    return _handled(value=MetadataValue.json({"output": VALUE}))


@cache
def _handled_hidden() -> StepTemplate:
    return _handled()


def _handled(**more: MetadataValue[Any]) -> StepTemplate:
    return _template(
        DagsterEventType.HANDLED_OUTPUT,
        'Handled output "result" using IO manager "io_manager"',
        HandledOutputData(
            output_name="result",
            manager_key="io_manager",
            metadata={"bytes": MetadataValue.int(BYTES_MARK), **more},
        ),
    )


@cache
def _succeeded() -> StepTemplate:
    return _template(
        DagsterEventType.STEP_SUCCESS,
        f'Finished execution of step "{NODE}" in {DURATION}.',
        StepSuccessData(duration_ms=MILLISECONDS_MARK),
    )


@cache
def _skipped() -> StepTemplate:
    return _template(DagsterEventType.STEP_SKIPPED, f'Skipped execution of step "{NODE}".')


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
