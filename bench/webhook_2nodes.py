"""From the call of a webhook to the end of its run of two nodes, while 2,000 a minute come.

Calls are sent when their times have come, whatever has become of those before, and counted from
those times: until the run's end is seen in the database, committed. One looks each 5 ms.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Final, LiteralString

from bench.engines.web import run
from bench.support.figures import milliseconds
from bench.support.graphs import Work, chain
from bench.support.http import Http
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site
from bench.support.webhooks import Webhooks, publish
from foundation.database import AsyncConnection, async_connect

_A_MINUTE: Final = 2_000
_SECONDS: Final = 30.0
_WARM_UP_SECONDS: Final = 3.0
_CONNECTIONS: Final = 32
_POLL_SECONDS: Final = 0.005
_PATIENCE_SECONDS: Final = 30.0

ENDED: Final[LiteralString] = """
SELECT d.delivery_id::text, r.status
FROM graphwright.deliveries d JOIN graphwright.runs r USING (tenant, run_id)
WHERE d.tenant = 'default' AND d.delivery_id = ANY(%s::uuid[]) AND r.ended_at IS NOT NULL
"""


def measure(site: Site) -> Answer:
    webhooks = publish(site.ours, chain(Work("transform", 2), "webhook-2nodes"))
    with site.only(site.ours):
        run(_Load(site.ours.database, webhooks, _WARM_UP_SECONDS).run())
        load = _Load(site.ours.database, webhooks, _SECONDS)
        run(load.run())
    return Answer(
        {
            "p50": milliseconds(load.took),
            "p99": milliseconds(load.took, 0.99),
            "p50 of an answer": milliseconds(load.answered),
            "p99 of an answer": milliseconds(load.answered, 0.99),
        }
    )


class _Load:
    """Calls at even times for some seconds."""

    def __init__(self, database: str, webhooks: Webhooks, seconds: float) -> None:
        self.took: list[float] = []
        """Seconds from each call's time until the end of its run was seen."""
        self.answered: list[float] = []
        """Seconds from each call's time to its answer."""
        self._database = database
        self._webhooks = webhooks
        self._count = round(seconds * _A_MINUTE / 60)
        self._running: dict[str, float] = {}
        """By delivery, the times of the calls whose runs have not been seen to end."""

    async def run(self) -> None:
        """Raises RuntimeError where a run does not succeed, or not in time."""
        free: asyncio.Queue[Http] = asyncio.Queue()
        async with AsyncExitStack() as stack:
            for _ in range(_CONNECTIONS):
                free.put_nowait(await stack.enter_async_context(self._webhooks.http()))
            database = await stack.enter_async_context(await async_connect(self._database))
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(database))
                    began = time.perf_counter()
                    for number in range(self._count):
                        at = began + number * 60 / _A_MINUTE
                        await asyncio.sleep(at - time.perf_counter())
                        tasks.create_task(self._call(free, at))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _call(self, free: asyncio.Queue[Http], at: float) -> None:
        http = await free.get()
        answer = await http.send(self._webhooks.call(http))
        self.answered.append(time.perf_counter() - at)
        free.put_nowait(http)
        self._running[answer.json()["delivery_id"]] = at

    async def _watch(self, database: AsyncConnection) -> None:
        deadline = time.perf_counter() + self._count * 60 / _A_MINUTE + _PATIENCE_SECONDS
        while len(self.took) < self._count:
            await asyncio.sleep(_POLL_SECONDS)
            if time.perf_counter() > deadline:
                raise RuntimeError(f"of {self._count} calls {len(self.took)} have a run that ended")
            if not self._running:
                continue
            rows = await (await database.execute(ENDED, (list(self._running),))).fetchall()
            seen_at = time.perf_counter()
            for row in rows:
                if row["status"] != "succeeded":
                    raise RuntimeError(f"a run ended as {row['status']}")
                self.took.append(seen_at - self._running.pop(row["delivery_id"]))


QUESTION: Final = Question(
    title="Webhook call to the end of its run of 2 nodes, at 2,000 calls a minute",
    aims=(Aim("p50", 50, "ms"),),
    measure=measure,
)
