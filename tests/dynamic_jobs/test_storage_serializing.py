"""Events that we serialize are to Dagster what it would have serialized itself."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetKey,
    AssetMaterialization,
    AssetObservation,
    DagsterEvent,
    DagsterEventType,
    EventLogEntry,
    MetadataValue,
    TableColumn,
    TableSchema,
)
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    EngineEventData,
    HandledOutputData,
    JobCanceledData,
    JobFailureData,
    LoadedInputData,
    RunFailureReason,
    StepMaterializationData,
)
from dagster._core.execution.plan.handle import ResolvedFromDynamicStepHandle, StepHandle
from dagster._core.execution.plan.inputs import StepInputData
from dagster._core.execution.plan.objects import (
    ErrorSource,
    StepFailureData,
    StepRetryData,
    StepSuccessData,
    TypeCheckData,
    UserFailureData,
)
from dagster._core.execution.plan.outputs import StepOutputData, StepOutputHandle
from dagster._serdes import deserialize_value, serialize_value
from dagster._utils.error import SerializableErrorInfo
from hypothesis import given
from hypothesis import strategies as st

from dynamic_jobs.executing import step_events
from dynamic_jobs.storage.serializing import serialize_event
from foundation.errors import GraphwrightError


def made(
    build: Callable[..., Any], *args: st.SearchStrategy[Any], **kwargs: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    """``st.builds`` without its guesses at what is left out, for it cannot read these classes."""
    drawn = st.tuples(st.tuples(*args), st.fixed_dictionaries(kwargs))
    return drawn.map(lambda given: build(*given[0], **given[1]))


words = st.text(max_size=8)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
numbers = st.floats()
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
keys = st.lists(names, min_size=1, max_size=3).map(AssetKey)


def _path(path: str) -> Any:
    return MetadataValue.path(path)


def _table(column: str) -> Any:
    return MetadataValue.table_schema(TableSchema(columns=[TableColumn(name=column, type="int")]))


metadata_values: st.SearchStrategy[Any] = st.one_of(
    words.map(MetadataValue.text),
    st.integers().map(MetadataValue.int),
    numbers.map(MetadataValue.float),
    st.dictionaries(words, json_values, max_size=3).map(MetadataValue.json),
    st.booleans().map(MetadataValue.bool),
    words.map(MetadataValue.md),
    words.map(_path),
    words.map(MetadataValue.url),
    keys.map(MetadataValue.asset),
    st.floats(0, 2e9).map(MetadataValue.timestamp),
    names.map(_table),
    st.just(MetadataValue.null()),
)
metadata: st.SearchStrategy[Mapping[str, Any]] = st.dictionaries(names, metadata_values, max_size=3)
tags = st.dictionaries(names, names, max_size=3)
errors = st.deferred(
    lambda: made(
        SerializableErrorInfo,
        words,
        st.lists(words, max_size=2),
        st.none() | names,
        cause=st.none() | errors,
    )
)
checks = made(TypeCheckData, st.booleans(), names, metadata=metadata)
materializations = made(
    AssetMaterialization,
    keys,
    description=st.none() | words,
    metadata=metadata,
    partition=st.none() | words,
    tags=st.none() | tags,
)
evaluations = made(
    AssetCheckEvaluation,
    asset_key=keys,
    check_name=names,
    passed=st.booleans(),
    metadata=metadata,
    severity=st.sampled_from(AssetCheckSeverity),
)
failures = made(UserFailureData, words, st.none() | words, metadata)
datas: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    made(
        StepOutputData,
        made(StepOutputHandle, names, names, st.none() | names),
        st.none() | checks,
        metadata=metadata,
    ),
    made(StepInputData, input_name=names, type_check_data=checks),
    made(StepSuccessData, numbers),
    made(StepFailureData, errors, failures, st.none() | st.sampled_from(ErrorSource)),
    made(StepRetryData, errors, st.none() | numbers),
    made(HandledOutputData, names, names, metadata),
    made(LoadedInputData, names, names, names, names, metadata),
    made(StepMaterializationData, materializations),
    made(AssetObservationData, made(AssetObservation, keys, metadata=metadata)),
    made(AssetMaterializationPlannedData, keys, st.none() | names),
    evaluations,
    made(EngineEventData, metadata, st.none() | errors, st.none() | names),
    made(
        JobFailureData,
        errors,
        st.sampled_from(RunFailureReason),
        st.sampled_from([None, DagsterEvent("STEP_SKIPPED", "job", message="broken")]),
    ),
    made(JobCanceledData, errors),
)
nodes = made(NodeHandle, names, st.none() | made(NodeHandle, names, st.none()))
handles = made(StepHandle, nodes) | made(ResolvedFromDynamicStepHandle, nodes, names)


def _event(kind: DagsterEventType, **more: Any) -> DagsterEvent:
    # Built as it is read back: whether a kind may hold such data is the constructor's to say.
    return DagsterEvent._make(  # pyright: ignore[reportPrivateUsage]
        more.get(field) if field != "event_type_value" else kind.value
        for field in DagsterEvent._fields  # pyright: ignore[reportPrivateUsage]
    )


events = made(
    _event,
    st.sampled_from(DagsterEventType),
    job_name=names,
    step_handle=st.none() | handles,
    node_handle=st.none() | nodes,
    step_kind_value=st.none() | st.just("COMPUTE"),
    logging_tags=st.none() | tags,
    event_specific_data=datas,
    message=st.none() | words,
    pid=st.none() | st.integers(),
    step_key=st.none() | names,
)
entries = made(
    EventLogEntry,
    error_info=st.none() | errors,
    level=st.sampled_from(["DEBUG", "INFO", 10, 50]),
    user_message=words,
    run_id=names,
    timestamp=st.floats(0, 2e9),
    step_key=st.none() | names,
    job_name=st.none() | names,
    dagster_event=st.none() | events,
)


def as_dagster_writes(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


@given(entries)
def test_the_json_holds_what_dagsters_holds(entry: EventLogEntry) -> None:
    assert as_dagster_writes(serialize_event(entry)) == serialize_value(entry)


def line(text: str, **more: Any) -> EventLogEntry:
    return EventLogEntry(
        error_info=None, level=20, user_message=text, run_id="r", timestamp=1.5, **more
    )


def noted(value: Any) -> EventLogEntry:
    data = EngineEventData({"noted": MetadataValue.json({"value": value})})
    event = DagsterEvent("ENGINE_EVENT", "job", event_specific_data=data)
    return line("", dagster_event=event)


@pytest.mark.parametrize(
    "entry",
    [
        line("\x00 \udfff \u2028 é 😀"),
        noted(float("inf")),
        noted(-0.0),
        noted(1e400),
        noted(2**70),
        noted("\ud800"),
        noted({"a": [1, {"b": ()}]}),
        noted([]),
    ],
)
def test_what_json_has_no_word_for_is_written_as_dagster_does(entry: EventLogEntry) -> None:
    assert as_dagster_writes(serialize_event(entry)) == serialize_value(entry)


STEP_EVENTS: dict[str, Callable[[], step_events.StepEvent]] = {
    "started": lambda: step_events.started("one"),
    "output": lambda: step_events.output("one"),
    "handled": lambda: step_events.handled(2, value=MetadataValue.json({"output": [1]})),
    "succeeded": lambda: step_events.succeeded("one", 1.5),
    "failed": lambda: step_events.failed("one", GraphwrightError("broken", hint="mend it")),
    "retrying": lambda: step_events.retrying("one", GraphwrightError("broken"), 2.0),
    "skipped": lambda: step_events.skipped("one"),
    "materialized": lambda: step_events.materialized(["a", "b"], {"rows": 3}),
}


@pytest.mark.parametrize("kind", STEP_EVENTS)
def test_the_events_of_a_step_come_back_equal_and_without_dagsters_help(kind: str) -> None:
    entry = STEP_EVENTS[kind]().entry(job="job", run="r", node="one", time=1.5, pid=1)
    text = serialize_event(entry)
    assert deserialize_value(text, EventLogEntry) == entry
    assert text.startswith('{"__class__":"EventLogEntry"')  # Dagster would put a space
