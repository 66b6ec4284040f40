"""A run's log, as the warm path writes it: step events and the lines that nodes log."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from dagster import DagsterEvent, DagsterRun, EventLogEntry, MetadataValue
from dagster_shared.utils.timing import format_duration

from dynamic_jobs.executing import step_events
from dynamic_jobs.executing.nodes import NodeOutput
from dynamic_jobs.executing.outputs import is_shown, stored
from dynamic_jobs.executing.step_events import StepEvent
from dynamic_jobs.executing.step_templates import (
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
from dynamic_jobs.storage.outputs import Stored
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
    """Appends one run's events to the writer. Safe to call from any thread.

    Raises ``LeaseLost`` once the run is not held any more under the lease that it was made under.

    First attempts, which are nearly all, are written from templates.
    """

    def __init__(self, run: DagsterRun, writer: EventWriter) -> None:
        self._run_id = RunId(run.run_id)
        self._job = run.job_name
        self._writer = writer
        self._lease = writer.lease(self._run_id)
        self._pid = os.getpid()

    def started(self, node: NodeId, attempt: int, *, again: bool = False) -> None:
        """An attempt starts; ``again``, if it had started before, in a worker that is gone."""
        if attempt > 1 and again:
            self._append(step_events.started(node), node, attempt)
        elif attempt == 1:
            self._write(self._filled(_started(), node))
        else:
            self._append(step_events.restarted(node, attempt), node, attempt)

    def succeeded(self, node: NodeId, attempt: int, output: NodeOutput, duration_ms: float) -> None:
        """Output, its handling and the success; the stored output commits with them."""
        if attempt > 1:
            shown = is_shown(output.text)
            value = {"value": MetadataValue.json({"output": output.value})} if shown else {}
            self._append(step_events.output(node), node, attempt)
            self._append(step_events.handled(output.size, **value), node, attempt)
            success = step_events.succeeded(node, duration_ms)
            self._append(success, node, attempt, kept=stored(output))
            return
        handled = _handled_shown() if is_shown(output.text) else _handled_hidden()
        self._write(
            self._filled(_output(), node),
            self._filled(handled, node, bytes=str(output.size), value=output.text),
            self._filled(
                _succeeded(),
                node,
                duration=format_duration(duration_ms),
                milliseconds=repr(duration_ms),
                kept=stored(output),
            ),
        )

    def failed(
        self, node: NodeId, attempt: int, error: GraphwrightError, *, handled: bool
    ) -> DagsterEvent:
        """The last attempt failed. Unless ``handled``, Dagster's loop wants to see this event."""
        return self._append(step_events.failed(node, error, handled=handled), node, attempt)

    def retrying(self, node: NodeId, attempt: int, error: GraphwrightError, seconds: float) -> None:
        """An attempt failed, and another follows in ``seconds``."""
        self._append(step_events.retrying(node, error, seconds), node, attempt)

    def waiting(self, node: NodeId, attempt: int, until: datetime) -> None:
        self._append(step_events.waiting(until), node, attempt)

    def materialized(
        self, node: NodeId, attempt: int, key: Sequence[str], metadata: Mapping[str, Any]
    ) -> None:
        self._append(step_events.materialized(key, metadata), node, attempt)

    def skipped(self, node: NodeId) -> None:
        self._write(self._filled(_skipped(), node))

    def message(self, node: NodeId, level: str, text: str) -> None:
        """A line that a node logged."""
        self._write(
            Record.of(
                EventLogEntry(
                    error_info=None,
                    level=_LEVELS.get(level, logging.INFO),
                    user_message=text,
                    run_id=self._run_id,
                    timestamp=time.time(),
                    step_key=node,
                    job_name=self._job,
                )
            )
        )

    def _write(self, *records: Record) -> None:
        self._writer.append(*records, lease=self._lease)

    def _append(
        self, event: StepEvent, node: NodeId, attempt: int, *, kept: Stored | None = None
    ) -> DagsterEvent:
        entry = event.entry(
            job=self._job,
            run=self._run_id,
            node=node,
            time=time.time(),
            pid=self._pid,
            attempt=attempt,
        )
        self._write(Record.of(entry, None if kept is None else (node, kept)))
        return entry.get_dagster_event()

    def _filled(
        self, template: StepTemplate, node: NodeId, *, kept: Stored | None = None, **slots: str
    ) -> Record:
        now = time.time()
        text = template.fill(
            job=self._job,
            node=node,
            run=self._run_id,
            time=repr(now),
            pid=str(self._pid),
            **slots,
        )
        return Record(
            run_id=self._run_id,
            event=text,
            event_type=template.kind.value,
            at=datetime.fromtimestamp(now, UTC),
            step_key=node,
            output=None if kept is None else (node, kept),
        )


def _template(event: StepEvent) -> StepTemplate:
    entry = event.entry(job=JOB, run=RUN, node=NODE, time=TIME_MARK, pid=PID_MARK)
    return StepTemplate.of(event.kind, entry)


@cache
def _started() -> StepTemplate:
    return _template(step_events.started(NODE))


@cache
def _output() -> StepTemplate:
    return _template(step_events.output(NODE))


@cache
def _handled_shown() -> StepTemplate:
    return _template(step_events.handled(BYTES_MARK, value=MetadataValue.json({"output": VALUE})))


@cache
def _handled_hidden() -> StepTemplate:
    return _template(step_events.handled(BYTES_MARK))


@cache
def _succeeded() -> StepTemplate:
    return _template(step_events.succeeded(NODE, MILLISECONDS_MARK, DURATION))


@cache
def _skipped() -> StepTemplate:
    return _template(step_events.skipped(NODE))
