"""The contract with Dagster's serialization: real entries, serialized by Dagster, translated."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from dagster import (
    DagsterEventType,
    DagsterInstance,
    EventLogEntry,
    Failure,
    OpExecutionContext,
    RetryRequested,
    graph,
    op,
)
from dagster._core.events import JobFailureData
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData, StepRetryData
from dagster._serdes import serialize_value
from dagster._utils.error import SerializableErrorInfo

from dynamic_jobs.reading.events import (
    ATTEMPT_TAG,
    PUBLISHED_DAGSTER_TYPES,
    EventType,
    RunEvent,
    to_event,
)
from tests.dynamic_jobs.run_rows import entry, failure, handled_output, line, success


def translate(logged: EventLogEntry, **result: Any) -> RunEvent | None:
    kind = logged.dagster_event.event_type_value if logged.dagster_event else None
    return to_event("run-1", 17, serialize_value(logged), kind, **result)


def data_of(logged: EventLogEntry, **result: Any) -> dict[str, Any]:
    event = translate(logged, **result)
    assert event is not None
    return event["data"]


def test_an_event_has_exactly_the_fields_of_the_interface() -> None:
    assert translate(entry(DagsterEventType.STEP_START, "a")) == {
        "id": "17",
        "run_id": "run-1",
        "type": "node.started",
        "node": "a",
        "item": None,
        "attempt": 1,
        "at": "2023-11-14T22:13:20.250000Z",
        "data": {},
    }


@pytest.mark.parametrize(
    ("kind", "node", "expected"),
    [
        (DagsterEventType.RUN_ENQUEUED, None, "run.queued"),
        (DagsterEventType.RUN_START, None, "run.started"),
        (DagsterEventType.RUN_RESUMED, None, "run.resumed"),
        (DagsterEventType.STEP_RESTARTED, "a", "node.started"),
        (DagsterEventType.STEP_SKIPPED, "a", "node.skipped"),
        (DagsterEventType.RUN_CANCELED, None, "run.cancelled"),
    ],
)
def test_types_without_data(kind: DagsterEventType, node: str | None, expected: str) -> None:
    event = translate(entry(kind, node))
    assert event is not None
    assert (event["type"], event["node"], event["data"]) == (expected, node, {})


def test_every_other_type_of_dagster_is_left_out_unparsed() -> None:
    others = {kind.value for kind in DagsterEventType} - set(PUBLISHED_DAGSTER_TYPES)
    assert len(others) > 20
    assert not any(to_event("run-1", 1, "not even JSON", kind) for kind in others)


def test_published_types_are_dagsters() -> None:
    assert set(PUBLISHED_DAGSTER_TYPES) <= {kind.value for kind in DagsterEventType}


@pytest.mark.parametrize(
    ("level", "name"),
    [(10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "critical"), (25, "info")],
)
def test_log_lines_of_a_node(level: int, name: str) -> None:
    event = translate(line("a", 'say "hi"\n', level))
    assert event is not None
    assert (event["type"], event["node"]) == ("node.log", "a")
    assert event["data"] == {"level": name, "message": 'say "hi"\n'}


def test_log_lines_of_no_node_are_left_out() -> None:
    assert translate(line(None, "the job says")) is None


def test_text_that_is_no_unicode_and_numbers_that_are_no_json_still_translate() -> None:
    assert data_of(line("a", "half \ud800 pair"))["message"] == "half ? pair"
    assert data_of(handled_output("a", [1, "é"]))["value"] == [1, "é"]
    odd = json.dumps(
        json.loads(serialize_value(success("a"))) | {"timestamp": 0.0, "odd": float("nan")}
    )
    assert to_event("run-1", 1, odd, "STEP_SUCCESS") is not None


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1.5, True]}, "x" * 1_000])
def test_outputs(value: Any) -> None:
    size = len(json.dumps(value, separators=(",", ":")))
    assert data_of(handled_output("a", value)) == {"bytes": size, "value": value}


def test_success_has_its_duration() -> None:
    assert data_of(success("a", 12.25)) == {"duration_ms": 12.25}


def test_outputs_and_error_of_the_run_come_with_its_end() -> None:
    assert data_of(entry(DagsterEventType.RUN_SUCCESS), outputs={"n": 1}) == {"outputs": {"n": 1}}
    error = {"code": "c", "message": "m", "hint": "h", "node": "a"}
    assert data_of(entry(DagsterEventType.RUN_FAILURE), error=error) == {"error": error}


def test_an_error_of_ours_is_shown_in_full_and_its_stack_never() -> None:
    logged = failure("a", "file_not_allowed", "not below a root", "ask the operator")
    assert data_of(logged) == {
        "error": {
            "code": "file_not_allowed",
            "message": "not below a root",
            "hint": "ask the operator",
        }
    }


def test_any_other_error_shows_its_class_alone() -> None:
    inner = SerializableErrorInfo("password is hunter2", ["secret.py"], "KeyError")
    outer = SerializableErrorInfo("secret", ["x"], "DagsterExecutionStepExecutionError", inner)
    data = data_of(entry(DagsterEventType.STEP_FAILURE, "a", StepFailureData(outer, None)))
    assert data["error"]["code"] == "internal"
    assert data["error"]["message"] == "The node failed unexpectedly (KeyError)."
    assert not {"hunter2", "secret"} & set(json.dumps(data).split())


def test_an_interrupted_node_was_cancelled() -> None:
    error = SerializableErrorInfo("", [], "DagsterExecutionInterruptedError")
    logged = StepFailureData(error, None, ErrorSource.INTERRUPT)
    assert data_of(entry(DagsterEventType.STEP_FAILURE, "a", logged))["error"] == {
        "code": "cancelled",
        "message": "The node was stopped.",
        "hint": "",
    }


def test_a_failed_run_without_an_error_of_its_own_shows_its_first_failed_node() -> None:
    failed = failure("b", "http_refused", "404", "").dagster_event
    logged = entry(DagsterEventType.RUN_FAILURE, None, JobFailureData(None, None, failed))
    assert data_of(logged)["error"] == {
        "code": "http_refused",
        "message": "404",
        "hint": "",
        "node": "b",
    }
    bare = entry(DagsterEventType.RUN_FAILURE, None, JobFailureData(None))
    assert data_of(bare)["error"]["message"] == "The run failed unexpectedly."


def test_a_retry_says_why_and_when() -> None:
    error = SerializableErrorInfo("m", [], "TimeoutError")
    logged = entry(DagsterEventType.STEP_UP_FOR_RETRY, "a", StepRetryData(error, 2.5))
    event = translate(logged)
    assert event is not None
    assert event["type"] == "node.retrying"
    assert event["data"]["seconds"] == 2.5
    assert event["data"]["error"]["code"] == "internal"


def test_the_attempt_is_taken_from_the_tag() -> None:
    event = translate(entry(DagsterEventType.STEP_START, "a", tags={ATTEMPT_TAG: "3"}))
    assert event is not None and event["attempt"] == 3


@op
def _fine(context: OpExecutionContext) -> dict[str, int]:
    context.log.warning("careful")
    if context.retry_number < 2:
        raise RetryRequested(max_retries=2)
    return {"n": 1}


@op
def _refuses(_n: Any) -> None:
    raise Failure("not today", {"code": "closed", "hint": "come back tomorrow"})


@op
def _after(_n: Any) -> None:
    pass


@graph
def _whole() -> None:
    _after.alias("after")(_refuses.alias("refuses")(_fine.alias("fine")()))


@pytest.fixture(scope="module")
def stock_run() -> Iterator[list[RunEvent]]:
    """What clients see of a run under Dagster's own executor, as Dagster stored it."""
    with DagsterInstance.ephemeral() as instance:
        result = _whole.to_job().execute_in_process(instance=instance, raise_on_error=False)
        events = [translate(logged) for logged in instance.all_logs(result.run_id)]
        yield [event for event in events if event is not None]


def test_a_run_under_dagsters_own_executor(stock_run: list[RunEvent]) -> None:
    seen = [(event["type"], event["node"], event["attempt"]) for event in stock_run]
    assert seen == [
        ("run.started", None, 1),
        ("node.started", "fine", 1),
        ("node.log", "fine", 1),
        ("node.retrying", "fine", 1),
        ("node.started", "fine", 2),
        ("node.log", "fine", 1),
        ("node.retrying", "fine", 1),
        ("node.started", "fine", 3),
        ("node.log", "fine", 1),
        ("node.output", "fine", 1),
        ("node.succeeded", "fine", 1),
        ("node.started", "refuses", 1),
        ("node.failed", "refuses", 1),
        ("node.log", "after", 1),  # "Dependencies for step after failed"
        ("run.failed", None, 1),
    ]
    failed, _, ended = stock_run[-3:]
    told = {"code": "closed", "message": "not today", "hint": "come back tomorrow"}
    assert failed["data"] == {"error": told}
    assert ended["data"] == {"error": {**told, "node": "refuses"}}


def test_the_documentation_has_every_type() -> None:
    text = (Path(__file__).parents[2] / "docs" / "events.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith(("| `run.", "| `node."))]
    assert [row.split("`")[1] for row in rows] == list(get_args(EventType))
