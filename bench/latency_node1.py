"""How long a client waits for a single node: what a run costs whatever is in it."""

from typing import Final

from bench.engines.peers import FAST_PEERS
from bench.support.asking import latency
from bench.support.graphs import Work
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site


def measure(site: Site) -> Answer:
    return latency(site, Work("transform", 1), FAST_PEERS)


QUESTION: Final = Question(
    title="REST trigger to terminal event at an SSE client, 1 node, idle",
    aims=(Aim("p50", 10, "ms"),),
    measure=measure,
    peers=FAST_PEERS,
)
