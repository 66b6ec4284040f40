"""What one more node costs: a chain of 100 against one of 10, divided by the 90 between them."""

from typing import Final

from bench.support.figures import figure, milliseconds, quantile
from bench.support.graphs import CHAIN_10, Work
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site

_LONG: Final = Work("transform", 100)
_ROUNDS: Final = 8
_RUNS: Final = 20
_SECONDS: Final = 5.0


def measure(site: Site) -> Answer:
    """Both chains in turn, and a difference of medians for each round."""
    further: list[float] = []
    long: list[float] = []
    with site.only(site.ours):
        for work in (CHAIN_10, _LONG):
            site.ours.one_by_one(work, 5, _SECONDS)
        for _ in range(_ROUNDS):
            short_ones = site.ours.one_by_one(CHAIN_10, _RUNS, _SECONDS)
            long_ones = site.ours.one_by_one(_LONG, _RUNS, _SECONDS)
            between = quantile(long_ones, 0.5) - quantile(short_ones, 0.5)
            further.append(between / (_LONG.nodes - CHAIN_10.nodes))
            long += long_ones
    per_node = figure(further, "ms", scale=1000)
    return Answer({"per node": per_node, "chain of 100": milliseconds(long)})


QUESTION: Final = Question(
    title="Overhead per further node, chain of 100",
    aims=(Aim("per node", 0.2, "ms"),),
    measure=measure,
)
