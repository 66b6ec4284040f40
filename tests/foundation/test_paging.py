"""Cursors."""

import uuid

import pytest
from hypothesis import given, strategies

from foundation.errors import Invalid
from foundation.ids import new_id
from foundation.paging import decode_cursor, encode_cursor


@given(strategies.uuids())
def test_cursor_round_trip(identity: uuid.UUID) -> None:
    cursor = encode_cursor(str(identity))
    assert decode_cursor(cursor) == str(identity)
    assert cursor.replace("-", "").replace("_", "").isalnum()  # fit for a URL


@given(strategies.text(max_size=40))
def test_anything_else_is_invalid(text: str) -> None:
    try:
        identity = decode_cursor(text)
    except Invalid as error:
        assert error.faults[0].pointer == "/cursor"
    else:
        assert uuid.UUID(identity)


@pytest.mark.parametrize("text", ["", "A" * 21, "A" * 23, "é"])
def test_odd_lengths_are_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        decode_cursor(text)


def test_new_ids_are_ordered() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))
    assert {uuid.UUID(identity).version for identity in ids} == {7}
