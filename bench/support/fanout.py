"""Ten thousand clients on a hundred runs, each of which logs a line a second, and one API process.

The lines are written by the event writer, in a process of its own; the clients are another one.
"""

import threading
from typing import Final

import psutil

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.figures import Figure, figure
from bench.support.graphs import CHAIN_10, chain
from bench.support.question import Answer
from bench.support.site import Site, say
from bench.support.talking import Talkers
from bench.support.watchers import Seen, Watchers

_CLIENTS: Final = 10_000
_RUNS: Final = 100
_SECONDS: Final = 10.0
_AFTERWARDS_SECONDS: Final = 2.0
_ROUNDS: Final = 3
_MIB: Final = 2**20


def fan_out(site: Site, kind: str) -> Answer:
    """``kind`` is ``sse`` or ``websocket``. Raises RuntimeError where an event did not arrive."""
    with site.quiet(), site.roles() as roles:
        api = roles.client
        run_ids = start_runs(api, _RUNS)
        process = psutil.Process(roles.pid("api"))
        token = api.headers["Authorization"].removeprefix("Bearer ")
        with (
            Watchers(site.processes, kind, api.base, token) as watchers,
            Talkers(site.processes, api.database, site.services.valkey(0)) as talkers,
        ):
            talkers.hold(run_ids)
            watchers.open([run_ids[number % _RUNS] for number in range(_CLIENTS)])
            say(f"  {_CLIENTS:,} clients are connected")
            seen: list[Seen] = []
            busy: list[float] = []
            for _ in range(_ROUNDS):
                began = sum(process.cpu_times()[:2])
                seen.append(_round(watchers, talkers))
                busy.append((sum(process.cpu_times()[:2]) - began) / _SECONDS * 100)
            memory = process.memory_full_info().uss / _MIB
    return Answer(
        {
            "p99 from the line to a client": _seconds([each.p99 for each in seen]),
            "p50": _seconds([each.p50 for each in seen]),
            "memory of the API": figure([memory], "MB"),
            "the API's share of a core": figure(busy, "%"),
            "clients' share of a core": figure([each.share for each in seen], "%", scale=100.0),
        }
    )


def start_runs(api: Graphwright, count: int) -> list[str]:
    """Trigger runs of a graph; nobody works on them."""
    name = api.post(chain(CHAIN_10))

    async def start() -> list[str]:
        async with api.http() as http:
            request = http.post(f"/api/v1/graphs/{name}/runs", b"{}")
            return [(await http.send(request)).json()["run_id"] for _ in range(count)]

    return run(start())


def _round(watchers: Watchers, talkers: Talkers) -> Seen:
    said: list[int] = []
    talking = threading.Thread(target=lambda: said.append(talkers.talk(_SECONDS, 1.0)))
    talking.start()
    seen = watchers.count(_SECONDS + _AFTERWARDS_SECONDS)
    talking.join()
    expected = said[0] * _CLIENTS // _RUNS
    if seen.events != expected or seen.ended:
        raise RuntimeError(
            f"of {expected:,} events {seen.events:,} arrived; {seen.ended:,} streams have ended"
        )
    return seen


def _seconds(samples: list[float]) -> Figure:
    return figure(samples, "ms", scale=1000.0)
