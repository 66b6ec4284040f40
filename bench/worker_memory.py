"""The memory of the worker role with one worker process, idle and with many active runs.

Counted as PSS, which divides a page that several processes share among them, over the whole role:
the parent of the workers too. Where there is no PSS (macOS), as what each process has for itself.
"""

import time
from typing import Final

import psutil

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.figures import Figure, figure
from bench.support.graphs import CHAIN_10, document, sleep, transform
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site

_WARM_UP: Final = 100
_WARM_UP_SECONDS: Final = 10.0
_RUNS: Final = 100
_SLEEP_SECONDS: Final = 8.0
_POLL_SECONDS: Final = 0.1
_MIB: Final = 2**20


def measure(site: Site) -> Answer:
    with site.stack(worker_processes="1", leave_seconds="60") as stack:
        stack.one_by_one(CHAIN_10, _WARM_UP, _WARM_UP_SECONDS)
        base = _memory(stack)
        return Answer({"base": figure([base], "MB"), "per active run": _per_run(stack, base)})


def _per_run(stack: Graphwright, base: float) -> Figure:
    """What each run that has started and not ended adds."""
    nodes = {"one": transform(1), "wait": sleep(_SLEEP_SECONDS, "one")}
    name = stack.post(document("waiting", nodes))
    run(stack.trigger(name, _RUNS))
    deadline = time.monotonic() + _SLEEP_SECONDS / 2
    while stack.active() < _RUNS and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    grown = _memory(stack) - base
    active = stack.active()
    if not active:
        raise RuntimeError("no run was active")
    return figure([grown / active], "MB")


def _memory(stack: Graphwright) -> float:
    parent = psutil.Process(stack.worker())
    found = [each.memory_full_info() for each in (parent, *parent.children(recursive=True))]
    return sum(getattr(each, "pss", 0) or each.uss for each in found) / _MIB


QUESTION: Final = Question(
    title="Worker memory, one worker process",
    aims=(Aim("base", 180, "MB"), Aim("per active run", 2, "MB")),
    measure=measure,
)
