"""``tests.dies``: ends the process that computes it."""

from typing import Any

from tests.dynamic_jobs.ending_types import Died, Dies, Dying


class TestsDies(Dying):
    """Ends its process, as the kernel does when memory runs out."""

    name = "tests.dies"
    version = 1
    effects = "none"
    With = Dies
    Output = Died

    def __reduce__(self) -> tuple[Any, ...]:
        return Dying, ()  # processes of a pool know the module of that one only
