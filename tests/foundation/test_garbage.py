"""The collector pauses, and goes on whatever happens."""

import gc

import pytest

from foundation.garbage import collector_paused


def test_the_collector_goes_on_after_the_block_even_if_that_fails() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
