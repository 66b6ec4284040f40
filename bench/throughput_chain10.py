"""How many chains of ten are finished a second. Engines that need seconds for one are not asked."""

from typing import Final

from bench.engines.peers import FAST_PEERS
from bench.support.asking import throughput
from bench.support.graphs import CHAIN_10
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site


def measure(site: Site) -> Answer:
    return throughput(site, CHAIN_10, FAST_PEERS)


QUESTION: Final = Question(
    title="Chain of 10, sustained from REST triggers to finished",
    aims=(Aim("throughput", 150, "runs/s", at_least=True),),
    measure=measure,
    peers=FAST_PEERS,
)
