"""What can be asked of an engine, ours or a peer: run a chain, alone or many at once."""

from contextlib import AbstractContextManager
from typing import Final, Protocol

from bench.support.graphs import Work

PAUSE_SECONDS: Final = 0.03
"""An engine is idle that long before each single run."""


class Engine(Protocol):
    """A running engine. Programs of its own are stopped while ``stopped()`` is held."""

    name: str
    program: str
    """Engines of the same program share their processes."""
    how: str
    """Its version and how it was set up, in a sentence or two, for the page."""
    slow: bool
    """A single run takes seconds: it gets few of them, and none to warm up."""

    def one_by_one(self, work: Work, count: int, seconds: float) -> list[float]:
        """Run ``work`` again and again: at most ``count`` times, at least once, and starting none
        after ``seconds``. Seconds each, from the client's call until the client knows the end.
        """
        ...

    def at_once(self, work: Work, count: int) -> float:
        """Start ``count`` runs as fast as they are accepted; seconds until the last has ended."""
        ...

    def stopped(self) -> AbstractContextManager[None]: ...
