"""How many events one process persists a second, from Dagster's event objects on."""

from collections.abc import Sequence
from typing import Final

from bench.support.figures import Figure, figure
from bench.support.persisting import Events
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site

_ROUNDS: Final = 5
_OURS: Final = 20_000
_STOCK: Final = 300


def measure(site: Site) -> Answer:
    """In turn: ours, ours of runs that nobody watches, and dagster-postgres as it comes."""
    services = site.services
    urls = (services.database("bench_events"), services.database("bench_events_stock"))
    live: list[float] = []
    unwatched: list[float] = []
    stock: list[float] = []
    with (
        site.quiet(),
        Events(site.processes, "ours", urls[0], services.valkey(0)) as ours,
        Events(site.processes, "stock", urls[1], "") as theirs,
    ):
        ours.rate(_OURS // 4, live=True)
        theirs.rate(_STOCK // 10, live=False)
        for _ in range(_ROUNDS):
            live.append(ours.rate(_OURS, live=True))
            unwatched.append(ours.rate(_OURS, live=False))
            stock.append(theirs.rate(_STOCK, live=False))
    peers = {"dagster-postgres": {"persisted": _events(stock)}}
    return Answer({"persisted": _events(live), "with `live: false`": _events(unwatched)}, peers)


def _events(rates: Sequence[float]) -> Figure:
    return figure(rates, "events/s")


QUESTION: Final = Question(
    title="Events persisted by one process, from event objects",
    aims=(Aim("persisted", 20_000, "events/s", at_least=True),),
    measure=measure,
)
