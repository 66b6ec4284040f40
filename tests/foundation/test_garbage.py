"""The collector pauses and goes on whatever happens, and seldom runs in servers."""

import gc

import pytest

from foundation.garbage import collect_seldom, collector_paused


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


def test_a_server_looks_for_garbage_seldom_and_never_among_what_it_began_with() -> None:
    before = gc.get_threshold()
    mine = [object()]
    try:
        collect_seldom()
        assert all(each is not mine for each in gc.get_objects())
        assert gc.get_threshold() == (10_000, before[1], 7)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
