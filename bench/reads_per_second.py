"""How many reads a second an API process answers: a run, a graph, and lists of either, in turn.

No worker runs. The client is this process, on the same two cores.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Final

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.figures import figure, milliseconds
from bench.support.graphs import CHAIN_10, chain
from bench.support.http import Http
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site

_RUNS: Final = 200
_CONNECTIONS: Final = 64
_WARM_UP: Final = 600
_ROUNDS: Final = 5
_SECONDS: Final = 3.0


def measure(site: Site) -> Answer:
    rates: dict[str, list[float]] = {}
    took: list[float] = []
    shares: list[float] = []
    with site.quiet(), site.api() as api:
        name = api.post(chain(CHAIN_10))
        run(api.trigger(name, _RUNS))
        listed = run(_get(api, f"/api/v1/runs?limit={_RUNS}"))
        run_ids = [item["run_id"] for item in listed["items"]]
        runs = [f"/api/v1/runs/{run_id}" for run_id in run_ids]
        asked = {
            "reads of all kinds": [
                *runs, f"/api/v1/graphs/{name}", "/api/v1/runs?limit=10", "/api/v1/graphs?limit=10",
            ],
            "of a run": runs,
            "of a graph": [f"/api/v1/graphs/{name}"],
            "of a page of 10 runs": ["/api/v1/runs?limit=10"],
        }  # fmt: skip
        for kind, paths in asked.items():
            began = time.perf_counter()
            run(_read(api, paths, _WARM_UP))
            count = int(_WARM_UP / (time.perf_counter() - began) * _SECONDS)
            for _ in range(_ROUNDS):
                began, busy = time.perf_counter(), time.process_time()
                answers = run(_read(api, paths, count))
                seconds = time.perf_counter() - began
                rates.setdefault(kind, []).append(count / seconds)
                if kind == "reads of all kinds":
                    took += answers
                    shares.append((time.process_time() - busy) / seconds * 100)
    return Answer(
        {
            **{kind: figure(found, "/s") for kind, found in rates.items()},
            "p99 of an answer": milliseconds(took, 0.99),
            "client's share of a core": figure(shares, "%"),
        }
    )


async def _get(api: Graphwright, path: str) -> dict[str, list[dict[str, str]]]:
    async with api.http() as http:
        return (await http.send(http.get(path))).json()


async def _read(api: Graphwright, paths: list[str], count: int) -> list[float]:
    """Ask for these paths in turn over several connections; seconds that each answer took."""
    took: list[float] = []
    turns: Iterator[str] = itertools.islice(itertools.cycle(paths), count)

    async def one() -> None:
        async with api.http() as http:
            await _ask(http, turns, took)

    await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))
    return took


async def _ask(http: Http, paths: Iterator[str], took: list[float]) -> None:
    for path in paths:
        request = http.get(path)
        began = time.perf_counter()
        await http.send(request)
        took.append(time.perf_counter() - began)


QUESTION: Final = Question(
    title="REST reads answered by one API process, 64 connections",
    aims=(Aim("reads of all kinds", 3_000, "/s", at_least=True),),
    measure=measure,
)
