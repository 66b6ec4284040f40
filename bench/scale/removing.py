"""What the removal of old runs takes: log of deleting rows and of the vacuum behind that; pace."""

import time
from typing import Final, LiteralString

from bench.scale.costs import Removal
from bench.scale.counting import log_since, settle, written
from bench.support.figures import quantile
from bench.support.site import say
from dynamic_jobs.retention.batch import remove_runs
from dynamic_jobs.retention.removed import Removed, Rules
from dynamic_jobs.retention.walk import Position
from foundation.database import Connection, async_connect

AGE: Final[LiteralString] = """
SELECT extract(epoch FROM clock_timestamp() - ended_at)::float / 3600 AS hours
FROM graphwright.runs ORDER BY ended_at OFFSET %(removed)s LIMIT 1
"""


async def remove(database: Connection, url: str, runs: int) -> Removal:
    """Remove the oldest runs, about so many, as workers do but without their pauses."""
    settle(database)
    row = database.execute(AGE, {"removed": runs}).fetchone()
    assert row is not None
    rules = Rules(days=0, key_hours=row["hours"], recent_graphs=0)
    begun = written(database)
    removed, rates = Removed(), list[float]()
    async with await async_connect(url) as connection:
        position, last = Position(), False
        while not last:
            began = time.perf_counter()
            async with connection.transaction():
                batch = await remove_runs(connection, rules, position)
            rates.append(batch.removed.runs / (time.perf_counter() - began))
            removed, position, last = removed + batch.removed, batch.position, batch.last
    deleted = log_since(database, begun)
    database.execute("CHECKPOINT")
    behind = written(database)
    database.execute("VACUUM")
    vacuumed = log_since(database, behind)
    say(f"  {removed.runs:,} runs are removed")
    return Removal(
        runs=removed.runs,
        events=removed.events / removed.runs,
        wal_bytes=deleted.bytes / removed.runs,
        wal_pages=deleted.pages / removed.runs,
        vacuum_bytes=vacuumed.bytes / removed.runs,
        vacuum_pages=vacuumed.pages / removed.runs,
        runs_a_second=max(rates),
        median_runs_a_second=quantile(rates, 0.5),
    )
