"""From the call of a webhook to the start of its run: some ten calls a second, in no rhythm.

Signed as GitHub signs, with a filter and params, and of 7 kB. From just before the call is sent to
the run's ``started_at``, by two clocks that are the same. Plain Dagster has no webhooks: its sensor
looks for files in a folder.
"""

import asyncio
import random
import time
from typing import Final, LiteralString

from bench.engines.base import Engine
from bench.engines.dagster_plain import DagsterPlain
from bench.engines.web import run
from bench.support.asking import Samples, answer_of, interleaved
from bench.support.figures import milliseconds
from bench.support.graphs import document, transform
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site
from bench.support.webhooks import Webhooks, publish
from foundation.database import Connection, connect

_ROUNDS: Final = 5
_CALLS: Final = 60
_PAUSE_SECONDS: Final = 0.1
_WARM_UP: Final = 20
_DROPPED: Final = 5
_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05

STARTED: Final[LiteralString] = """
SELECT d.delivery_id::text, extract(epoch FROM r.started_at)::float AS started_at
FROM graphwright.deliveries d JOIN graphwright.runs r USING (tenant, run_id)
WHERE d.tenant = 'default' AND d.delivery_id = ANY(%s::uuid[]) AND r.started_at IS NOT NULL
"""


def measure(site: Site) -> Answer:
    webhooks = publish(site.ours, document("webhook-start", {"one": transform(1)}))
    running, absent = site.peers(QUESTION.peers)
    peers = [peer for peer in running if isinstance(peer, DagsterPlain)][:1]
    answered: Samples = []

    def ask(engine: Engine) -> Samples:
        if isinstance(engine, DagsterPlain):
            return engine.sensed(_DROPPED)
        from_sending, from_answer = _starts(database, webhooks, _CALLS)
        answered.extend(from_answer)
        return from_sending

    with connect(site.ours.database) as database:
        with site.only(site.ours):
            _starts(database, webhooks, _WARM_UP)
        samples = interleaved(site, peers, ask, _ROUNDS)
    answer = answer_of(
        site,
        samples,
        absent,
        lambda found: {"p50": milliseconds(found), "p99": milliseconds(found, 0.99)},
    )
    since = {
        "p50 since its answer": milliseconds(answered),
        "p99 since its answer": milliseconds(answered, 0.99),
    }
    return Answer({**answer.ours, **since}, answer.peers)


def _starts(database: Connection, webhooks: Webhooks, count: int) -> tuple[Samples, Samples]:
    """Seconds until the start of each call's run: since it was sent, and since it was answered."""
    calls = run(_call(webhooks, count))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    ids = list(calls)
    while len(rows := database.execute(STARTED, (ids,)).fetchall()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"of {count} calls only {len(rows)} have a run that has started")
        time.sleep(_POLL_SECONDS)
    started = {row["delivery_id"]: row["started_at"] for row in rows}
    return (
        [started[delivery] - sent_at for delivery, (sent_at, _) in calls.items()],
        [started[delivery] - answered_at for delivery, (_, answered_at) in calls.items()],
    )


async def _call(webhooks: Webhooks, count: int) -> dict[str, tuple[float, float]]:
    """By delivery, the Unix times at which the call was sent and answered."""
    calls: dict[str, tuple[float, float]] = {}
    async with webhooks.http() as http:
        for _ in range(count):
            await asyncio.sleep(_PAUSE_SECONDS * random.uniform(0.5, 1.5))
            request = webhooks.call(http)
            sent_at = time.time()
            answer = await http.send(request)
            calls[answer.json()["delivery_id"]] = (sent_at, time.time())
    return calls


QUESTION: Final = Question(
    title="Webhook call to the start of its run, one call after the other",
    aims=(Aim("p50", 20, "ms"), Aim("p99", 100, "ms")),
    measure=measure,
    peers=("dagster_plain",),
)
