"""How many triggers a second an API process accepts, each durable when it answers 202.

No worker runs: what is measured is accepting. The client is this process, on the same two cores.
"""

import time
from typing import Final, LiteralString

from bench.engines.graphwright import Graphwright
from bench.engines.web import run
from bench.support.figures import figure, milliseconds
from bench.support.graphs import CHAIN_10, chain
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site
from foundation.database import connect

_WARM_UP: Final = 300
_ROUNDS: Final = 5
_SECONDS: Final = 4.0
_CONNECTIONS: Final = 64

STORED: Final[LiteralString] = "SELECT count(*) AS stored FROM graphwright.run_queue"


def measure(site: Site) -> Answer:
    with site.quiet(), site.api() as api:
        name = api.post(chain(CHAIN_10))
        began = time.perf_counter()
        run(api.trigger(name, _WARM_UP, _CONNECTIONS))
        count = int(_WARM_UP / (time.perf_counter() - began) * _SECONDS)
        rates: list[float] = []
        took: list[float] = []
        shares: list[float] = []
        for _ in range(_ROUNDS):
            began, busy = time.perf_counter(), time.process_time()
            took += run(api.trigger(name, count, _CONNECTIONS))
            seconds = time.perf_counter() - began
            rates.append(count / seconds)
            shares.append((time.process_time() - busy) / seconds * 100)
        _check(api, _WARM_UP + _ROUNDS * count)
    return Answer(
        {
            "accepted": figure(rates, "/s"),
            "p99 of an answer": milliseconds(took, 0.99),
            "client's share of a core": figure(shares, "%"),
        }
    )


def _check(api: Graphwright, accepted: int) -> None:
    with connect(api.database) as database:
        row = database.execute(STORED).fetchone()
    if row is None or row["stored"] != accepted:
        raise RuntimeError(f"{accepted} were accepted, but of the rows there are {row}")


QUESTION: Final = Question(
    title="REST triggers accepted and durable, 64 connections",
    aims=(Aim("accepted", 1_500, "/s", at_least=True),),
    measure=measure,
)
