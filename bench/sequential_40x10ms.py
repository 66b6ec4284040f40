"""Forty tasks of 10 ms, one after the other: 0.4 s of work, and the rest is the engine."""

from typing import Final

from bench.support.asking import answer_of, interleaved
from bench.support.figures import figure
from bench.support.graphs import Work
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site

_WORK: Final = Work("sleep", 40, 0.01)
_ROUNDS: Final = 3
_RUNS: Final = 5
_SECONDS: Final = 8.0
_PEERS: Final = ("celery", "dbos")


def measure(site: Site) -> Answer:
    running, absent = site.peers(_PEERS)
    samples = interleaved(
        site, running, lambda engine: engine.one_by_one(_WORK, _RUNS, _SECONDS), _ROUNDS
    )
    return answer_of(site, samples, absent, lambda found: {"run": figure(found, "s")})


QUESTION: Final = Question(
    title="40 tasks of 10 ms, sequential, from trigger to the end at the client",
    aims=(Aim("run", 0.45, "s"),),
    measure=measure,
    peers=_PEERS,
)
