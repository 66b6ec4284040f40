"""What a benchmark module offers: ``QUESTION``, with its aims and the function that measures."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.support.figures import Figure
from bench.support.site import Site

_FOLDER: Final = Path(__file__).parent.parent

ORDER: Final = (
    "latency_chain10",
    "latency_node1",
    "throughput_chain10",
    "overhead_chain100",
    "fanout_1000",
    "montage",
    "nodes_10000",
    "sequential_40x10ms",
    "waiting_1000",
    "events_per_second",
    "triggers_per_second",
    "reads_per_second",
    "stress_100_users",
    "stream_latency",
    "sse_10000",
    "websockets_10000",
    "webhook_start",
    "webhook_2nodes",
    "webhooks_per_second",
    "timers_million",
    "fairness",
    "launches_per_second",
    "first_run",
    "million_graphs",
    "worker_memory",
    "retention",
)
"""The questions as tables show them, which is also the order in which they are asked."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What one of our figures shall be: at most ``bound``, or at least."""

    figure: str
    bound: float
    unit: str
    at_least: bool = False

    def met_by(self, figures: Mapping[str, Figure]) -> bool:
        found = figures.get(self.figure)
        if found is None:
            return False
        return found.value >= self.bound if self.at_least else found.value <= self.bound


@dataclass(frozen=True, slots=True)
class Answer:
    """Our figures by name, and each peer's: its figures, or why it has none.

    A peer has at least the figure of the question's first aim: the ratio is of that one.
    """

    ours: Mapping[str, Figure]
    peers: Mapping[str, Mapping[str, Figure] | str] = field(
        default_factory=dict[str, Mapping[str, Figure] | str]
    )


@dataclass(frozen=True, slots=True)
class Question:
    """``peers`` are modules of ``bench.engines`` that can be asked the same."""

    title: str
    aims: tuple[Aim, ...]
    measure: Callable[[Site], Answer]
    peers: tuple[str, ...] = ()


def load(name: str) -> Question:
    module: Any = importlib.import_module(f"bench.{name}")
    question = module.QUESTION
    assert isinstance(question, Question)
    return question


def modules() -> list[str]:
    """The names of the benchmark modules that there are, in no useful order."""
    return [path.stem for path in _FOLDER.glob("[!_]*.py")]
