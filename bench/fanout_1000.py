"""A fan-out of 1,000 nodes that is joined again, from the trigger to the end at a client."""

from typing import Final

from bench.support.graphs import fan_out
from bench.support.question import Aim, Answer, Question
from bench.support.recording import recorded
from bench.support.site import Site

_RUNS: Final = 15


def measure(site: Site) -> Answer:
    return Answer(recorded(site, fan_out(1_000), _RUNS))


QUESTION: Final = Question(
    title="Fan-out of 1,000 nodes, joined",
    aims=(Aim("run", 0.25, "s"),),
    measure=measure,
)
