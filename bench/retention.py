"""What removing old runs takes, out of a log of 440,000 events, and what it takes from the others:
as many events are persisted meanwhile, in turn without it, with it as workers do it, and at last
with ``graphwright prune``, which makes no pauses and so is soon done.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Generator
from typing import Any, Final, LiteralString

from bench.support.figures import figure, milliseconds
from bench.support.persisting import Events
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site, say
from dynamic_jobs.retention.batch import MOST_RUNS, Position, remove_runs
from dynamic_jobs.retention.pruning import Pruner, prune
from dynamic_jobs.retention.removed import Rules
from foundation.database import async_connect, connect
from foundation.settings import Settings

_RUNS: Final = 40_000
_BATCHES: Final = 20
_ROUNDS: Final = 7
_EVENTS: Final = 40_000
_PRUNE_ROUNDS: Final = 3
_PRUNE_EVENTS: Final = 10_000

# Ten tenants' runs of 11 events, 8 tags and 3 outputs each, that ended forty days ago.
RUNS: Final[LiteralString] = """
INSERT INTO graphwright.runs (tenant, run_id, sort_id, graph_id, graph_version_id, trigger, params,
                              status, author, created_at, ended_at)
SELECT 'old-' || number %% 10, gen_random_uuid(), uuidv7(interval '-40 days'), uuidv7(), uuidv7(),
       '{"type": "rest"}', '{}', 'succeeded', 'bench', now() - interval '40 days',
       now() - interval '40 days'
FROM generate_series(1, %(runs)s) number
"""
DAGSTER_RUNS: Final[LiteralString] = """
INSERT INTO runs (run_id, pipeline_name, status, run_body)
SELECT run_id::text, 'chain', 'SUCCESS', repeat('run body ', 200) FROM graphwright.runs
"""
TAGS: Final[LiteralString] = """
INSERT INTO run_tags (run_id, key, value)
SELECT run_id, 'graphwright/tag-' || number, md5(run_id) FROM runs, generate_series(1, 8) number
"""
EVENTS: Final[LiteralString] = """
INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key)
SELECT run_id, repeat(md5(run_id || number), 25), 'STEP_SUCCESS', now(), 'step-' || number
FROM runs, generate_series(1, 11) number
"""
OUTPUTS: Final[LiteralString] = """
INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)
SELECT tenant, run_id, 'node-' || number, '[1, 2, 3]'
FROM graphwright.runs, generate_series(1, 3) number
"""
SETTLE: Final[tuple[LiteralString, ...]] = ("VACUUM ANALYZE", "CHECKPOINT")


def measure(site: Site) -> Answer:
    url = site.services.database("bench_retention")
    settings = Settings(state=site.folder / "retention", database_url=url)
    alone: list[float] = []
    beside: list[float] = []
    pruned: list[float] = []
    with (
        site.quiet(),
        Events(site.processes, "ours", url, site.services.valkey(0)) as others,
    ):
        others.rate(_EVENTS, live=False)  # by then it has made the tables
        fill(url)
        batches = asyncio.run(_batches(settings))
        for _ in range(_ROUNDS):
            rate = others.rate(_EVENTS, live=False)
            with _meanwhile(Pruner(settings).run()):
                alone.append(others.rate(_EVENTS, live=False) / rate)
            beside.append(rate)
        for _ in range(_PRUNE_ROUNDS):
            rate = others.rate(_PRUNE_EVENTS, live=False)
            with _meanwhile(prune(settings, dry_run=False, progress=lambda _: None)):
                pruned.append(others.rate(_PRUNE_EVENTS, live=False) / rate)
    return Answer(
        {
            "a batch": milliseconds(batches),
            "events persisted beside, against without": figure(alone, "times"),
            "against `graphwright prune`": figure(pruned, "times"),
            "events persisted without": figure(beside, "events/s"),
        }
    )


def fill(url: str) -> None:
    """Make the old runs."""
    began = time.monotonic()
    with connect(url) as database:
        for statement in (RUNS, DAGSTER_RUNS, TAGS, EVENTS, OUTPUTS):
            database.execute(statement, {"runs": _RUNS} if statement is RUNS else None)
        for statement in SETTLE:
            database.execute(statement)
    say(f"  {_RUNS} runs stored in {time.monotonic() - began:.0f} s")


async def _batches(settings: Settings) -> list[float]:
    """The seconds that each of some batches takes, commit included."""
    took: list[float] = []
    position = Position()
    async with await async_connect(settings.database_url) as connection:
        for _ in range(_BATCHES):
            began = time.perf_counter()
            async with connection.transaction():
                batch = await remove_runs(connection, Rules.of(settings), position)
            took.append(time.perf_counter() - began)
            assert batch.removed.runs == MOST_RUNS
            position = batch.position
    return took


@contextlib.contextmanager
def _meanwhile(work: Coroutine[Any, Any, object]) -> Generator[None]:
    """Do this in a thread until the block ends; it must not be done by then."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    thread = threading.Thread(target=loop.run_until_complete, args=(_ended(task),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
    if not task.cancelled():
        task.result()
        raise RuntimeError("there was nothing left to remove")


async def _ended(task: asyncio.Task[object]) -> None:
    await asyncio.wait({task})


QUESTION: Final = Question(
    title="Removing 500 runs of 11 events each, among 440,000 events",
    aims=(
        Aim("a batch", 250, "ms"),
        Aim("events persisted beside, against without", 0.9, "times", at_least=True),
    ),
    measure=measure,
)
