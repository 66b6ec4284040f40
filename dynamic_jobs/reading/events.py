"""A run's events as clients see them, read from Dagster's event log.

The log is the one record of what happened; this module translates it and never adds to it. Dagster
itself is not imported: the API reads events without it, and the worker translates thousands a
second. So this module leans, on purpose and alone, on how Dagster 1.13 serializes an
``EventLogEntry``: JSON objects that name their ``__class__``, with the storage names of
``DagsterEvent``, ``HandledOutputData``, ``StepSuccessData``, ``StepFailureData``,
``UserFailureData``, ``StepRetryData``, ``PipelineFailureData`` and ``SerializableErrorInfo``.
tests/dynamic_jobs/test_events.py builds each with the installed Dagster and fails when a release
changes one.

docs/events.md describes every type for clients.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, TypedDict

import orjson

EventType: TypeAlias = Literal[
    "run.queued",
    "run.started",
    "run.paused",
    "run.resumed",
    "node.started",
    "node.log",
    "node.output",
    "node.succeeded",
    "node.failed",
    "node.retrying",
    "node.waiting",
    "node.skipped",
    "run.succeeded",
    "run.failed",
    "run.cancelled",
]

TERMINAL: Final[frozenset[EventType]] = frozenset({"run.succeeded", "run.failed", "run.cancelled"})
"""The types after which a run has no further events."""

TERMINAL_DAGSTER_TYPES: Final = ("PIPELINE_SUCCESS", "PIPELINE_FAILURE", "PIPELINE_CANCELED")

ATTEMPT_TAG: Final = "graphwright/attempt"
"""The logging tag of a step's Dagster event that says which attempt it belongs to, from 2 on."""


HANDLED_LABEL: Final = "handled"
"""The metadata of a failure that says that the run goes on in spite of it."""

RUN_LABEL: Final = "graphwright/run"
"""The metadata of an ENGINE_EVENT without a step that says what became of the run: ``paused``,
or ``resumed`` before it had started."""

WAITING_LABEL: Final = "waiting_until"
"""The metadata of an ENGINE_EVENT that says that its step waits, and until when."""


class RunEvent(TypedDict):
    """One event, the same over SSE, WebSocket and JSON pages.

    ``id`` is opaque to clients; here it is Dagster's ``event_logs.id`` in decimal, and ids of one
    run rise in the order of its events. ``at`` is RFC 3339 in UTC, with microseconds.
    """

    id: str
    run_id: str
    type: EventType
    node: str | None
    item: str | None
    attempt: int
    at: str
    data: dict[str, Any]


def channel_of(run_id: str) -> str:
    """The Redis channel on which a run's events are published.

    A message is ``{"prev": id, "events": [RunEvent, …]}``, where ``prev`` is the id of the run's
    event before these, ``"0"`` where there is none.
    """
    return f"graphwright:run:{run_id}"


def tenant_channel_of(tenant: str) -> str:
    """The Redis channel that tells, without saying what, that a tenant's runs have news."""
    return f"graphwright:tenant:{tenant}"


def to_event(
    run_id: str,
    event_id: int,
    event: str | bytes,
    dagster_type: str | None,
    *,
    outputs: Any = None,
    error: Mapping[str, Any] | None = None,
) -> RunEvent | None:
    """Translate one row of ``event_logs``, or None where clients see nothing of it.

    ``event`` and ``dagster_type`` are the columns ``event`` and ``dagster_event_type``; the latter
    is None for a log line. ``outputs`` and ``error`` are the run's, for its terminal event. Rows of
    a type that clients do not see cost one look-up and are not parsed.
    """
    if dagster_type is None:
        return _log_line(run_id, event_id, event)
    translation = _TRANSLATIONS.get(dagster_type)
    if translation is None:
        return None
    kind, data_of = translation
    entry = _parse(event)
    dagster = entry["dagster_event"]
    if dagster_type == "ENGINE_EVENT" and dagster["step_key"] is None:
        standing = _remark(dagster)
        if standing is None:
            return None
        kind, data_of = standing, None
    data = {} if data_of is None else data_of(dagster)
    if data is None:
        return None
    if kind == "run.succeeded":
        data["outputs"] = outputs
    elif kind == "run.failed" and error is not None:
        data["error"] = dict(error)
    return {
        "id": str(event_id),
        "run_id": run_id,
        "type": kind,
        "node": dagster["step_key"],
        "item": None,
        "attempt": _attempt(dagster),
        "at": _at(entry["timestamp"]),
        "data": data,
    }


def step_error(event: str | bytes) -> dict[str, str]:
    """The error of a ``STEP_FAILURE`` or ``STEP_UP_FOR_RETRY`` row: its code, message and hint."""
    return _error(_specifics(_parse(event)["dagster_event"]))


def _log_line(run_id: str, event_id: int, event: str | bytes) -> RunEvent | None:
    entry = _parse(event)
    if entry["step_key"] is None:
        return None
    return {
        "id": str(event_id),
        "run_id": run_id,
        "type": "node.log",
        "node": entry["step_key"],
        "item": None,
        "attempt": 1,
        "at": _at(entry["timestamp"]),
        "data": {
            "level": _LEVELS.get(entry["level"], "info"),
            "message": entry["user_message"],
        },
    }


_LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}


def _parse(event: str | bytes) -> dict[str, Any]:
    try:
        return orjson.loads(event)
    except orjson.JSONDecodeError:
        # Dagster writes with the standard library, which lets lone surrogates and NaN through.
        # Clients get a replacement character and null: one odd log line must not end a stream.
        lenient = json.loads(event, parse_constant=lambda _: None)
        text = json.dumps(lenient, ensure_ascii=False)
        return orjson.loads(text.encode("utf-8", "replace"))


def _at(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


_RESTART = re.compile(r"attempt # (\d+)")


def _attempt(dagster: dict[str, Any]) -> int:
    tags: dict[str, str] | None = dagster["logging_tags"]
    if tags and (attempt := tags.get(ATTEMPT_TAG)):
        return int(attempt)
    if dagster["event_type_value"] == "STEP_RESTARTED":
        # Dagster's own executors say the number only in words.
        found = _RESTART.search(dagster["message"] or "")
        return int(found[1]) if found else 2
    return 1


def _specifics(dagster: dict[str, Any]) -> dict[str, Any]:
    return dagster["event_specific_data"] or {}


def _output(dagster: dict[str, Any]) -> dict[str, Any]:
    """``{"bytes": n, "value": …}``; ``value`` is left out when the output is not small."""
    data: dict[str, Any] = {}
    for entry in _specifics(dagster).get("metadata_entries", ()):
        if entry["label"] == "bytes":
            data["bytes"] = entry["entry_data"]["value"]
        elif entry["label"] == "value":
            data["value"] = entry["entry_data"]["data"]["output"]
    return data


def _success(dagster: dict[str, Any]) -> dict[str, Any]:
    return {"duration_ms": _specifics(dagster)["duration_ms"]}


def _failure(dagster: dict[str, Any]) -> dict[str, Any]:
    """``{"error": …}``, and ``handled`` where the run goes on in spite of it."""
    specifics = _specifics(dagster)
    failure: dict[str, Any] = specifics.get("user_failure_data") or {}
    entries: list[dict[str, Any]] = failure.get("metadata_entries") or []
    handled = any(entry["label"] == HANDLED_LABEL for entry in entries)
    return {"error": _error(specifics), **({"handled": True} if handled else {})}


def _retry(dagster: dict[str, Any]) -> dict[str, Any]:
    specifics = _specifics(dagster)
    return {"error": _error(specifics), "seconds": specifics.get("seconds_to_wait") or 0}


def _waiting(dagster: dict[str, Any]) -> dict[str, Any] | None:
    """``{"until": time}``; None for the other remarks that Dagster makes as engine events."""
    for entry in _specifics(dagster).get("metadata_entries", ()):
        if entry["label"] == WAITING_LABEL:
            return {"until": _at(entry["entry_data"]["value"])}
    return None


def _remark(dagster: dict[str, Any]) -> EventType | None:
    """None for the other remarks that Dagster makes about a run as engine events."""
    for entry in _specifics(dagster).get("metadata_entries", ()):
        if entry["label"] == RUN_LABEL:
            return "run.resumed" if entry["entry_data"]["text"] == "resumed" else "run.paused"
    return None


def waits(event: str | bytes) -> bool:
    """Whether an ``ENGINE_EVENT`` row says that its step waits."""
    return _waiting(_parse(event)["dagster_event"]) is not None


def _run_failure(dagster: dict[str, Any]) -> dict[str, Any]:
    specifics = _specifics(dagster)
    if step := specifics.get("first_step_failure_event"):
        return {"error": {**_error(_specifics(step)), "node": step["step_key"]}}
    return {"error": _error(specifics, "The run")}


def _error(specifics: dict[str, Any], subject: str = "The node") -> dict[str, str]:
    """What a client may see of a failure: an error of ours in full, of any other its class alone.

    A message or stack that was not written for users can hold paths, addresses and secrets. Ours
    come as the failure's description, with ``code`` and ``hint`` as its metadata.
    """
    if failure := specifics.get("user_failure_data"):
        told = {
            entry["label"]: entry["entry_data"].get("text") for entry in failure["metadata_entries"]
        }
        if code := told.get("code"):
            message = failure["description"] or ""
            return {"code": code, "message": message, "hint": told.get("hint") or ""}
    if specifics.get("error_source") == {"__enum__": "ErrorSource.INTERRUPT"}:
        return {"code": "cancelled", "message": f"{subject} was stopped.", "hint": ""}
    error: dict[str, Any] = specifics.get("error") or {}
    while error.get("cause") and error["cls_name"].startswith("Dagster"):
        error = error["cause"]
    name = f" ({error['cls_name']})" if error.get("cls_name") else ""
    return {
        "code": "internal",
        "message": f"{subject} failed unexpectedly{name}.",
        "hint": "The operator finds the stack trace in the Dagster UI.",
    }


_Translation: TypeAlias = tuple[EventType, Callable[[dict[str, Any]], dict[str, Any] | None] | None]

_TRANSLATIONS: Final[dict[str, _Translation]] = {
    "PIPELINE_ENQUEUED": ("run.queued", None),
    "PIPELINE_START": ("run.started", None),
    "RUN_RESUMED": ("run.resumed", None),
    "STEP_START": ("node.started", None),
    "STEP_RESTARTED": ("node.started", None),
    "HANDLED_OUTPUT": ("node.output", _output),
    "STEP_SUCCESS": ("node.succeeded", _success),
    "STEP_FAILURE": ("node.failed", _failure),
    "STEP_UP_FOR_RETRY": ("node.retrying", _retry),
    "ENGINE_EVENT": ("node.waiting", _waiting),
    "STEP_SKIPPED": ("node.skipped", None),
    "PIPELINE_SUCCESS": ("run.succeeded", None),
    "PIPELINE_FAILURE": ("run.failed", _run_failure),
    "PIPELINE_CANCELED": ("run.cancelled", None),
}

PUBLISHED_DAGSTER_TYPES: Final = tuple(_TRANSLATIONS)
"""The values of ``dagster_event_type`` of which clients see something; log lines have none."""
