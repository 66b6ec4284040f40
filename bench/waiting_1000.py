"""1,000 runs that each wait for a second, all at once, in one worker process."""

from typing import Final

from bench.support.figures import figure
from bench.support.graphs import Work
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site

_WORK: Final = Work("sleep", 1, 1.0)
_RUNS: Final = 1_000
_ROUNDS: Final = 3


def measure(site: Site) -> Answer:
    """From the first trigger, over REST, until the end of the last run is committed."""
    with site.stack(worker_processes="1") as stack:
        stack.at_once(_WORK, 20)
        return Answer({"all": figure([stack.at_once(_WORK, _RUNS) for _ in range(_ROUNDS)], "s")})


QUESTION: Final = Question(
    title="1,000 runs at once, each one node waiting 1 s, in one worker process",
    aims=(Aim("all", 3, "s"),),
    measure=measure,
)
