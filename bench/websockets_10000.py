"""10,000 WebSockets on 100 runs, one event a second a run, one API process."""

from typing import Final

from bench.support.fanout import fan_out
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site


def measure(site: Site) -> Answer:
    return fan_out(site, "websocket")


QUESTION: Final = Question(
    title="10,000 WebSockets on 100 runs, one event a second a run",
    aims=(Aim("p99 from the line to a client", 250, "ms"), Aim("memory of the API", 1_000, "MB")),
    measure=measure,
)
