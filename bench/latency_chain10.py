"""How long a client waits for a chain of ten when nothing else runs."""

from typing import Final

from bench.engines.peers import PEERS
from bench.support.asking import latency
from bench.support.graphs import CHAIN_10
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site


def measure(site: Site) -> Answer:
    return latency(site, CHAIN_10, PEERS)


QUESTION: Final = Question(
    title="REST trigger to terminal event at an SSE client, chain of 10, idle",
    aims=(Aim("p50", 12, "ms"), Aim("p99", 40, "ms")),
    measure=measure,
    peers=PEERS,
)
