"""Ids that are ordered by time."""

from datetime import UTC, datetime

from foundation.ids import first_id_of, new_id


def test_no_id_of_a_moment_comes_before_its_first() -> None:
    before = new_id()
    bound = first_id_of(datetime.now(UTC))
    assert bound[:13] >= before[:13]
    assert bound <= new_id()
    assert first_id_of(datetime(1960, 1, 1, tzinfo=UTC)) == first_id_of(
        datetime.fromtimestamp(0, UTC)
    )
    assert first_id_of(datetime(2100, 1, 1, tzinfo=UTC)) > new_id()
