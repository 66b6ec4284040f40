"""100 users, each with a connection, send 10,000 requests as quickly as they are answered: they
trigger runs, which a worker runs meanwhile, read them, list them, and read and publish graphs.

All on the same two cores: the API, the worker, PostgreSQL, and the users, which are this process.
"""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from typing import Any, Final

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.figures import figure, milliseconds
from bench.support.graphs import CHAIN_10, chain
from bench.support.http import Http, HttpError
from bench.support.question import Aim, Answer, Question
from bench.support.site import SEED, Site

_USERS: Final = 100
_REQUESTS: Final = 10_000
_WARM_UP: Final = 1_000
_ROUNDS: Final = 3
_MIX: Final = {"read a run": 50, "list runs": 15, "read a graph": 15, "trigger": 15, "publish": 5}


def measure(site: Site) -> Answer:
    took: list[float] = []
    means: list[float] = []
    rates: list[float] = []
    dice = random.Random(SEED)
    with site.stack() as stack:
        document = chain(CHAIN_10)
        users = _Users(stack, stack.post(document), document)
        run(users.send(_drawn(dice, _WARM_UP)))
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            users.took = []
            run(users.send(_drawn(dice, _REQUESTS)))
            rates.append(_REQUESTS / (time.perf_counter() - began))
            means.append(sum(users.took) / len(users.took))
            took += users.took
    if users.faults:
        raise RuntimeError(f"{len(users.faults)} requests failed, such as: {users.faults[0]}")
    return Answer(
        {
            "mean": milliseconds(means),
            "p95": milliseconds(took, 0.95),
            "p99": milliseconds(took, 0.99),
            "answered": figure(rates, "/s"),
        }
    )


def _drawn(dice: random.Random, count: int) -> Iterator[str]:
    return iter(dice.choices(list(_MIX), list(_MIX.values()), k=count))


class _Users:
    """What they have in common: the graph, the runs that they know of, and what they saw."""

    def __init__(self, stack: Graphwright, graph: str, document: dict[str, Any]) -> None:
        self.took: list[float] = []
        self.faults: list[str] = []
        self._stack = stack
        self._graph = graph
        self._document = document
        self._runs: list[str] = []

    async def send(self, wanted: Iterator[str]) -> None:
        await asyncio.gather(*(self._one(number, wanted) for number in range(_USERS)))

    async def _one(self, user: int, wanted: Iterator[str]) -> None:
        async with self._stack.http() as http:
            for what in wanted:
                request = self._request(http, user, what)
                began = time.perf_counter()
                try:
                    answer = await http.send(request)
                except HttpError as error:
                    self.faults.append(f"{what}: {error}")
                    continue
                self.took.append(time.perf_counter() - began)
                if what == "trigger":
                    self._runs.append(answer.json()["run_id"])

    def _request(self, http: Http, user: int, what: str) -> bytes:
        graphs, runs = "/api/v1/graphs", "/api/v1/runs"
        match what:
            case "read a run" if self._runs:
                return http.get(f"{runs}/{random.choice(self._runs[-1_000:])}")
            case "list runs":
                return http.get(f"{runs}?limit=20")
            case "trigger":
                return http.post(f"{graphs}/{self._graph}/runs", b"{}")
            case "publish":
                metadata = {"name": f"of-user-{user}", "labels": {"at": str(len(self.took))}}
                return http.post(
                    graphs, json.dumps({**self._document, "metadata": metadata}).encode()
                )
            case _:
                return http.get(f"{graphs}/{self._graph}")


QUESTION: Final = Question(
    title="100 users at once, 10,000 requests of all kinds",
    aims=(Aim("mean", 45, "ms"), Aim("p95", 120, "ms"), Aim("p99", 300, "ms")),
    measure=measure,
)
