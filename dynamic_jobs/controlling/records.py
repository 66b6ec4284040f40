"""Run-level events of Dagster's, ready for the writer."""

import logging
import time

from dagster import DagsterEvent, DagsterEventType, EventLogEntry
from dagster._core.events import EngineEventData

from dynamic_jobs.storage.records import Record
from foundation.ids import RunId

_ENGINE_EVENT = DagsterEventType.ENGINE_EVENT


def run_record(run_id: RunId, job_name: str, kind: DagsterEventType, message: str = "") -> Record:
    """An event of the run itself, that happens now."""
    event = DagsterEvent(
        event_type_value=kind.value,
        job_name=job_name,
        message=message or None,
        event_specific_data=EngineEventData({}) if kind is _ENGINE_EVENT else None,
    )
    entry = EventLogEntry(
        error_info=None,
        level=logging.INFO,
        user_message=message,
        run_id=run_id,
        timestamp=time.time(),
        job_name=job_name,
        dagster_event=event,
    )
    return Record.of(entry)
