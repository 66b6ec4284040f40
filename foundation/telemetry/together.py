"""Processes whose metrics are one process's to Prometheus: the workers of a pool.

Each keeps its numbers in files of its own in a folder that they share, and whichever of them is
asked adds them up. The numbers of a process that has ended still count.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Final

from foundation.settings import Settings

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library reads it when it is imported, so this module does not import that."""


@contextmanager
def counting_together(settings: Settings) -> Generator[None]:
    """This process and those that it starts count as one, if anybody is to read what they count.

    Call it before anything that counts is imported.
    """
    if not settings.metrics_port:
        yield
        return
    with TemporaryDirectory(prefix="graphwright-metrics-") as folder:
        os.environ[VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[VARIABLE]
