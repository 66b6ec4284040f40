"""A graph of 10,000 nodes: 100 layers of 100, two needs each."""

from typing import Final

from bench.support.compiling import compile_seconds
from bench.support.figures import figure
from bench.support.graphs import layered
from bench.support.question import Aim, Answer, Question
from bench.support.recording import recorded
from bench.support.site import Site

_NODES: Final = 10_000
_RUNS: Final = 3
_COMPILATIONS: Final = 3


def measure(site: Site) -> Answer:
    document = layered(_NODES, "nodes-10000")
    with site.quiet():
        compiled = figure(compile_seconds(document, _COMPILATIONS), "s")
    return Answer({"compile": compiled, **recorded(site, document, _RUNS)})


QUESTION: Final = Question(
    title="A graph of 10,000 nodes",
    aims=(Aim("compile", 3, "s"), Aim("run", 4, "s")),
    measure=measure,
)
