"""The shape of WfCommons' Montage trace: 310 tasks, 798 edges, empty bodies."""

from typing import Final

from bench.support import graphs
from bench.support.compiling import compile_seconds
from bench.support.figures import figure
from bench.support.question import Aim, Answer, Question
from bench.support.recording import recorded
from bench.support.site import Site

_RUNS: Final = 20
_COMPILATIONS: Final = 7


def measure(site: Site) -> Answer:
    document = graphs.montage()
    run = recorded(site, document, _RUNS)
    with site.quiet():
        prepare = figure(compile_seconds(document, _COMPILATIONS), "s")
    return Answer({**run, "prepare": prepare})


QUESTION: Final = Question(
    title="Montage shape (310 tasks, WfCommons), bodies empty, warm",
    aims=(Aim("run", 0.1, "s"), Aim("prepare", 0.3, "s")),
    measure=measure,
)
