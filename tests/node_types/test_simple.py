import time

import pytest
from pydantic import ValidationError

from node_types.base import NodePolicy
from node_types.data_transform import DataTransform, Transform
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


@pytest.mark.parametrize("seconds", [-1, MAX_SECONDS + 1, float("nan"), float("inf"), "1", True])
def test_sleep_takes_no_other_seconds(seconds: object) -> None:
    with pytest.raises(ValidationError):
        Sleep.model_validate({"seconds": seconds})
