"""Errors cross processes and keep what they carry."""

import pickle

import pytest

from foundation.errors import (
    Conflict,
    Fault,
    Forbidden,
    GraphwrightError,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
)


@pytest.mark.parametrize(
    "kind",
    [GraphwrightError, NotFound, Conflict, Unauthenticated, Forbidden, TooLarge, Unavailable],
)
def test_errors_survive_pickling(kind: type[GraphwrightError]) -> None:
    error = kind("what happened", hint="what to do", run_id="1")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == copy.message == "what happened"
    assert (copy.hint, copy.ids, copy.code, copy.status) == (
        "what to do", {"run_id": "1"}, kind.code, kind.status,
    )  # fmt: skip


def test_faults_survive_pickling() -> None:
    fault = Fault("/nodes/a", "bad", "is bad", "make it good")
    copy = pickle.loads(pickle.dumps(Invalid("faults", [fault], graph="g")))
    assert copy.faults == (fault,)
    assert copy.ids == {"graph": "g"}


def test_subclass_with_arguments_of_its_own_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(Peculiar(3)))
    assert (copy.count, copy.message) == (3, "3 of them")


class Peculiar(GraphwrightError):
    def __init__(self, count: int) -> None:
        super().__init__(f"{count} of them")
        self.count = count


def test_codes_are_unique() -> None:
    kinds = [NotFound, Conflict, Invalid, Unauthenticated, Forbidden, TooLarge, Unavailable]
    assert len({kind.code for kind in kinds}) == len(kinds)
