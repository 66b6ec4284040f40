"""``tests.leaky_process``: tells its secret wherever it can."""

from typing import Any

from tests.dynamic_jobs.leaky_types import LeakyProcess


class TestsLeakyProcess(LeakyProcess):
    """Tells its secret."""

    name = "tests.leaky_process"
    version = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return LeakyProcess, ()  # processes of a pool know the module of that one only
