"""A graph that nobody has seen before: posted, compiled and run."""

from typing import Final

from bench.support.figures import milliseconds
from bench.support.graphs import CHAIN_10, chain
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site

_GRAPHS: Final = 60
_WARM_UP: Final = 5


def measure(site: Site) -> Answer:
    with site.only(site.ours):
        took = [
            site.ours.first_run(chain(CHAIN_10, f"first-{number}"))
            for number in range(_WARM_UP + _GRAPHS)
        ]
    measured = took[_WARM_UP:]
    return Answer({"p50": milliseconds(measured), "p99": milliseconds(measured, 0.99)})


QUESTION: Final = Question(
    title="First run of a new graph, chain of 10: post, compile, run, to the end at an SSE client",
    aims=(Aim("p50", 60, "ms"),),
    measure=measure,
)
