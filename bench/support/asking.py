"""Asking several engines the same, in interleaved rounds."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.engines.base import Engine
from bench.support.figures import Figure, figure, milliseconds
from bench.support.graphs import Work
from bench.support.question import Answer
from bench.support.site import Site, one_line, say

Samples = list[float]

_ROUNDS: Final = 5
_RUNS: Final = 40
_ROUND_SECONDS: Final = 8.0
_PATIENCE_SECONDS: Final = 10.0
_LOAD_ROUNDS: Final = 3
_LOAD_SECONDS: Final = 5.0
_LOAD_FIRST: Final = 30
_LOAD_MOST: Final = 1_500


def interleaved(
    site: Site, peers: Sequence[Engine], ask: Callable[[Engine], Samples], rounds: int
) -> dict[str, Samples | str]:
    """Ask ours and each peer in turn, ``rounds`` times; while one is asked the others are stopped.

    A slow peer that has taken over 10 s so far takes part in no further round, and a peer that
    fails is out: its text says why. What goes wrong with ours is raised.
    """
    samples: dict[str, Samples | str] = {}
    spent: dict[str, float] = {}
    ours = site.ours
    for number in range(rounds):
        for engine in (ours, *peers):
            found = samples.setdefault(engine.name, [])
            patience = _PATIENCE_SECONDS if engine.slow else math.inf
            if isinstance(found, str) or spent.get(engine.name, 0.0) > patience:
                continue
            began = time.monotonic()
            try:
                with site.only(engine):
                    taken = ask(engine)
                    found += taken
            except Exception as error:
                if engine is ours:
                    raise
                samples[engine.name] = f"failed: {one_line(error)}"
                say(f"  {engine.name} {samples[engine.name]}")
                continue
            took = time.monotonic() - began
            spent[engine.name] = spent.get(engine.name, 0.0) + took
            say(f"  round {number + 1}, {engine.name}: {len(taken)} in {took:.1f} s")
    return samples


def latency(
    site: Site, work: Work, peers: Sequence[str], rounds: int = _ROUNDS, runs: int = _RUNS
) -> Answer:
    """Milliseconds of single runs, from the client's call to the client's knowledge: p50, p99."""
    running, absent = site.peers(peers)
    for engine in (site.ours, *(peer for peer in running if not peer.slow)):
        _quietly(lambda engine=engine: engine.one_by_one(work, 5, 2.0))

    def ask(engine: Engine) -> Samples:
        return engine.one_by_one(work, 1 if engine.slow else runs, _ROUND_SECONDS)

    samples = interleaved(site, running, ask, rounds)
    return answer_of(site, samples, absent, _quantiles)


def throughput(site: Site, work: Work, peers: Sequence[str]) -> Answer:
    """Runs a second: as many runs as take about five seconds, started as fast as is accepted."""
    running, absent = site.peers(peers)
    counts: dict[str, int] = {}

    def ask(engine: Engine) -> Samples:
        if engine.name not in counts:
            engine.at_once(work, _LOAD_FIRST)  # to warm up
            first = engine.at_once(work, _LOAD_FIRST)
            fitting = int(_LOAD_FIRST / first * _LOAD_SECONDS)
            counts[engine.name] = max(_LOAD_FIRST, min(_LOAD_MOST, fitting))
        count = counts[engine.name]
        return [count / engine.at_once(work, count)]

    samples = interleaved(site, running, ask, _LOAD_ROUNDS)
    return answer_of(site, samples, absent, lambda found: {"throughput": figure(found, "runs/s")})


def _quantiles(samples: Samples) -> dict[str, Figure]:
    return {"p50": milliseconds(samples), "p99": milliseconds(samples, 0.99)}


def _quietly(warm_up: Callable[[], object]) -> None:
    """A warm-up that fails says so when the engine is asked in earnest."""
    try:
        warm_up()
    except Exception as error:
        say(f"  warming up: {one_line(error)}")


def answer_of(
    site: Site,
    samples: Mapping[str, Samples | str],
    absent: Mapping[str, str],
    figures: Callable[[Samples], Mapping[str, Figure]],
) -> Answer:
    found = {
        name: each if isinstance(each, str) else figures(each) for name, each in samples.items()
    }
    ours = found.pop(site.ours.name)
    assert not isinstance(ours, str)
    return Answer(ours, {**found, **absent})
