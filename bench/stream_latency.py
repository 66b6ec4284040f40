"""How long a log line takes from where it is logged to a client of its run's stream.

One run, one client, ten lines a second, each committed before it is sent on.
"""

import threading
from typing import Final

from bench.support.fanout import start_runs
from bench.support.figures import figure
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site
from bench.support.talking import Talkers
from bench.support.watchers import Seen, Watchers

_SECONDS: Final = 5.0
_RATE: Final = 10.0
_ROUNDS: Final = 5


def measure(site: Site) -> Answer:
    with site.quiet(), site.roles() as roles:
        api = roles.client
        run_ids = start_runs(api, 1)
        token = api.headers["Authorization"].removeprefix("Bearer ")
        with (
            Watchers(site.processes, "sse", api.base, token) as watchers,
            Talkers(site.processes, api.database, site.services.valkey(0)) as talkers,
        ):
            talkers.hold(run_ids)
            watchers.open(run_ids)
            talkers.talk(1.0, _RATE)
            seen = [_round(watchers, talkers) for _ in range(_ROUNDS)]
    return Answer(
        {
            "p50": figure([each.p50 for each in seen], "ms", scale=1000.0),
            "p99": figure([each.p99 for each in seen], "ms", scale=1000.0),
        }
    )


def _round(watchers: Watchers, talkers: Talkers) -> Seen:
    talking = threading.Thread(target=lambda: talkers.talk(_SECONDS, _RATE))
    talking.start()
    seen = watchers.count(_SECONDS + 1.0)
    talking.join()
    if seen.events != _SECONDS * _RATE:
        raise RuntimeError(f"of {_SECONDS * _RATE:g} events {seen.events} arrived")
    return seen


QUESTION: Final = Question(
    title="From a node's log line to an SSE client",
    aims=(Aim("p50", 10, "ms"),),
    measure=measure,
)
