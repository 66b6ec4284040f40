"""Python's garbage collector, paused while something large is built."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


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
