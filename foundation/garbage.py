"""Python's garbage collector: paused while something large is built, and seldom run by servers."""

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

_COLLECTED_AFTER: Final = 10_000
_FULL_COLLECTIONS_EVERY: Final = 7


@contextmanager
def collector_paused() -> Generator[None]:
    """Keep the cyclic collector from running inside of the block, in all threads.

    What allocates millions of objects that stay makes the collector go through them again and
    again, which takes half of the time. Blocks may overlap: the first one to end resumes it.
    """
    paused = gc.isenabled()
    if paused:
        gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


def collect_seldom() -> None:
    """For a process that has loaded all that it needs, and will serve for long.

    Figures are in docs/adr/0006-api-server.md.
    """
    # What is loaded by now stays for good: full collections need not walk all of it each time.
    gc.collect()
    gc.freeze()
    # With the API's ten thousand streams a full collection takes a second, in which nobody is
    # served; by default there is one each time that a quarter has been added to what there is.
    # Young objects are collected rarely too: what a request has made is nearly always gone by
    # itself, and so is what a dispatcher reads of hundreds of graphs at once.
    _, middle, _ = gc.get_threshold()
    gc.set_threshold(_COLLECTED_AFTER, middle, _FULL_COLLECTIONS_EVERY)
