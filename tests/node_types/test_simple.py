import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from node_types.base import NodePolicy
from node_types.data_transform import DataTransform, Transform
from node_types.work_compute import Compute, WorkCompute
from node_types.work_sleep import MAX_SECONDS, Sleep, WorkSleep
from tests.node_types.conftest import ContextFor
from tests.node_types.running import run


@pytest.mark.parametrize("value", [None, 1, 2.5, "x", [1, {"a": None}], {}])
def test_transform_passes_its_value_on(value: object, context_for: ContextFor) -> None:
    given = Transform.model_validate({"value": value})
    output = run(DataTransform(), given, context_for(NodePolicy()))
    assert output.model_dump(mode="json") == value


def test_sleep_waits(context_for: ContextFor) -> None:
    started = time.monotonic()
    output = run(WorkSleep(), Sleep(seconds=0.05), context_for(NodePolicy()))
    assert time.monotonic() - started >= 0.05
    assert output.model_dump(mode="json") == {"seconds": 0.05}


def test_sleep_that_was_under_way_before_waits_for_the_rest(context_for: ContextFor) -> None:
    context = replace(
        context_for(NodePolicy()), started_at=datetime.now(UTC) - timedelta(seconds=3_600)
    )
    started = time.monotonic()
    run(WorkSleep(), Sleep(seconds=3_600.05), context)
    assert time.monotonic() - started < 60


def test_compute_spends_cpu_time(context_for: ContextFor) -> None:
    started = time.process_time()
    output = run(WorkCompute(), Compute(seconds=0.05), context_for(NodePolicy()))
    assert time.process_time() - started >= 0.05
    assert output.seconds >= 0.05


@pytest.mark.parametrize("seconds", [-1, MAX_SECONDS + 1, float("nan"), float("inf"), "1", True])
def test_sleep_takes_no_other_seconds(seconds: object) -> None:
    with pytest.raises(ValidationError):
        Sleep.model_validate({"seconds": seconds})
