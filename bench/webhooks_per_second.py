"""How many calls of webhooks a second one receiver process accepts, each durable when it answers;
and how many, when a dispatcher makes queued runs of them at the same time.

Signed as GitHub signs and of 7 kB, spread over the 100 webhooks of one graph. No worker runs. The
client is this process, on the same two cores.
"""

import asyncio
import time
from typing import Final, LiteralString

from bench.engines.web import run
from bench.support.figures import figure, milliseconds
from bench.support.graphs import CHAIN_10, chain
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site, say
from bench.support.webhooks import Webhooks, publish
from foundation.database import Connection, connect

_WEBHOOKS: Final = 100
_CONNECTIONS: Final = 64
_WARM_UP: Final = 300
_SECONDS: Final = 3.0
_ROUNDS: Final = 4
_POLL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 60.0

ACCEPTED: Final[LiteralString] = """
SELECT count(*) FILTER (WHERE verdict = 'pending') AS pending,
    count(*) FILTER (WHERE verdict = 'started') AS started,
    (SELECT count(*) FROM graphwright.run_queue) AS queued
FROM graphwright.deliveries
"""

WAITING: Final[LiteralString] = "SELECT count(*) AS waiting FROM graphwright.delivery_queue"


def measure(site: Site) -> Answer:
    alone: list[float] = []
    beside: list[float] = []
    took: list[float] = []
    shares: list[float] = []
    with site.quiet(), site.roles() as roles, connect(roles.client.database) as database:
        roles.start("hooks")
        webhooks = publish(roles.client, chain(CHAIN_10), _WEBHOOKS)
        roles.end("api")
        began = time.perf_counter()
        run(_call(webhooks, _WARM_UP))
        count = int(_WARM_UP / (time.perf_counter() - began) * _SECONDS)
        for _ in range(_ROUNDS):
            began, busy = time.perf_counter(), time.process_time()
            took += run(_call(webhooks, count))
            seconds = time.perf_counter() - began
            alone.append(count / seconds)
            shares.append((time.process_time() - busy) / seconds * 100)
        accepted = _WARM_UP + _ROUNDS * count
        _check(database, pending=accepted, runs=0)

        roles.start("dispatcher")
        backlog = _backlog(database, accepted)
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            run(_call(webhooks, count))
            _wait(database, 0)
            beside.append(count / (time.perf_counter() - began))
        _check(database, pending=0, runs=accepted + _ROUNDS * count)
    return Answer(
        {
            "accepted": figure(alone, "/s"),
            "accepted and made queued runs": figure(beside, "/s"),
            "waiting ones made queued runs": figure([backlog], "/s"),
            "p99 of an answer": milliseconds(took, 0.99),
            "client's share of a core": figure(shares, "%"),
        }
    )


async def _call(webhooks: Webhooks, count: int) -> list[float]:
    """Make ``count`` calls over several connections; the seconds that each answer took."""
    left = iter(range(count))
    took: list[float] = []

    async def one() -> None:
        async with webhooks.http() as http:
            for _ in left:
                request = webhooks.call(http)
                began = time.perf_counter()
                await http.send(request)
                took.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))
    return took


def _backlog(database: Connection, waiting: int) -> float:
    """How many a second of those that wait become runs, from when the first have."""
    left = _wait(database, waiting - 1)
    began = time.perf_counter()
    _wait(database, 0)
    seconds = time.perf_counter() - began
    say(f"  {left} that waited became runs in {seconds:.1f} s")
    return left / seconds


def _wait(database: Connection, most: int) -> int:
    """Until at most so many deliveries wait; how many do."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        row = database.execute(WAITING).fetchone()
        assert row is not None
        if row["waiting"] <= most:
            return row["waiting"]
        if time.monotonic() > deadline:
            raise RuntimeError(f"{row['waiting']} deliveries still wait")
        time.sleep(_POLL_SECONDS)


def _check(database: Connection, *, pending: int, runs: int) -> None:
    found = database.execute(ACCEPTED).fetchone()
    if found != {"pending": pending, "started": runs, "queued": runs}:
        raise RuntimeError(f"{pending} should be pending and {runs} queued runs, but: {found}")


QUESTION: Final = Question(
    title="Webhook calls of 7 kB accepted and durable, one receiver, 64 connections",
    aims=(Aim("accepted", 1_500, "/s", at_least=True),),
    measure=measure,
)
