"""When nodes are tried again, and after which errors."""

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamic_jobs.executing import nodes
from dynamic_jobs.executing.backoff import delay_seconds, is_retried
from dynamic_jobs.executing.node_secrets import MissingSecret, SecretTooShort
from foundation.errors import GraphwrightError
from graph_defs.document import LASTING_FAULTS, Retry
from graph_defs.expressions import ExpressionError, ExpressionTooCostly
from node_types.base import NodeError, OutputTooLarge

chances = st.floats(0, 1)
attempts = st.integers(1, 100)


def retry_of(**given: Any) -> Retry:
    return Retry.model_validate(given)


@st.composite
def retries(draw: st.DrawFn) -> Retry:
    longest = draw(st.floats(0.001, 86_400))
    return retry_of(
        limit=100,
        delay_seconds=draw(st.floats(0, longest)),
        backoff=draw(st.sampled_from(["constant", "exponential"])),
        max_delay_seconds=longest,
        jitter=draw(st.floats(0, 1)),
    )


@given(retries(), attempts, chances)
def test_a_delay_keeps_its_bounds(retry: Retry, failures: int, chance: float) -> None:
    delay = delay_seconds(retry, failures, chance)
    whole = delay_seconds(retry, failures, 0)
    assert 0 <= delay <= whole <= retry.max_delay_seconds
    assert delay >= whole * (1 - retry.jitter)
    assert whole >= min(retry.delay_seconds, retry.max_delay_seconds)


@given(retries(), attempts)
def test_without_jitter_delays_never_shrink(retry: Retry, failures: int) -> None:
    assert delay_seconds(retry, failures, 0) <= delay_seconds(retry, failures + 1, 0)


def test_an_exponential_delay_doubles_up_to_its_maximum() -> None:
    retry = retry_of(
        limit=9, delay_seconds=2, backoff="exponential", max_delay_seconds=10, jitter=0.5
    )
    assert [delay_seconds(retry, n, 0) for n in range(1, 6)] == [2, 4, 8, 10, 10]
    assert [delay_seconds(retry, n, 1) for n in range(1, 4)] == [1, 2, 4]


class Refused(NodeError):
    code: ClassVar[str] = "refused"


@pytest.mark.parametrize(
    ("on", "failures", "error", "again"),
    [
        (None, 1, Refused("no"), True),
        (None, 2, Refused("no"), True),
        (None, 3, Refused("no"), False),
        (["timeout", "refused"], 1, Refused("no"), True),
        (["timeout"], 1, Refused("no"), False),
        (None, 1, ExpressionError("no"), False),
    ],
)
def test_what_is_tried_again(
    on: list[str] | None, failures: int, error: GraphwrightError, again: bool
) -> None:
    assert is_retried(retry_of(limit=2, on=on), failures, error) is again
    assert not is_retried(None, failures, error)


def test_faults_that_a_document_may_not_name_are_those_that_do_not_pass() -> None:
    lasting = (
        ExpressionError("no"),
        ExpressionTooCostly("no"),
        MissingSecret("no"),
        SecretTooShort("no"),
        nodes.BadWith("no", []),
        nodes.OutputTooDeep("no"),
        OutputTooLarge("no"),
    )
    assert {error.code for error in lasting} == LASTING_FAULTS
    assert not any(nodes.may_pass(error) for error in lasting)
