"""One batch of runs: of the next tenants, as many old ones as one transaction takes."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from psycopg.rows import DictRow

from dynamic_jobs.naming import outputs_folder
from dynamic_jobs.retention import statements
from dynamic_jobs.retention.objects import FOLDER_END
from dynamic_jobs.retention.removed import Removed, Rules
from dynamic_jobs.retention.walk import Batch, Position, ended, find_old, rows_of, visit
from foundation.database import AsyncConnection

MOST_RUNS: Final = 500
MOST_EVENTS: Final = 20_000
"""In one transaction; a run that has more is removed in one of its own."""
_DAYS_COUNTED: Final = 1
"""Yesterday's quota is of no use any more, but clocks differ."""


async def remove_runs(connection: AsyncConnection, rules: Rules, after: Position) -> Batch:
    """Remove what is due in the next part of the walk; within a transaction of the caller's.

    One batch at a time: the caller holds the lock of :data:`statements.LOCK`.
    """
    await connection.execute(statements.BY_INDEX)
    # A run is kept at least as long as its Idempotency-Key, which leads to it.
    visited = await visit(
        connection, statements.VISIT_RUNS, rules, after, least_hours=rules.key_hours
    )
    old = await find_old(connection, statements.OLD_RUNS, visited, MOST_RUNS)
    due = await _due(connection, old)
    going = _first(due, await _count_events(connection, due))
    removed = await _remove(connection, going)
    removed += await _remove_days(connection, [row["tenant"] for row in visited])
    if len(going) < len(due):
        return ended(removed, visited, going[-1])
    return ended(removed, visited, old[-1] if len(old) == MOST_RUNS else None)


async def _due(connection: AsyncConnection, old: Sequence[DictRow]) -> list[DictRow]:
    """Those that may go, locked. One that somebody else holds may go another time."""
    due = [row for row in old if row["due"]]
    if not due:
        return []
    locked = await rows_of(connection, statements.LOCK_RUNS, **_keys(due))
    repeated = await rows_of(connection, statements.REPEATED, **_keys(due))
    free = {row["run_id"] for row in locked} - {row["run_id"] for row in repeated}
    return [row for row in due if row["run_id"] in free]


async def _count_events(connection: AsyncConnection, runs: Sequence[DictRow]) -> dict[str, int]:
    if not runs:
        return {}
    rows = await rows_of(connection, statements.COUNT_EVENTS, **_keys(runs))
    return {row["run_id"]: row["events"] for row in rows}


def _first(runs: Sequence[DictRow], events: Mapping[str, int]) -> Sequence[DictRow]:
    """As many of these runs as have events for one transaction; one at least."""
    sums = itertools.accumulate(events.get(run["run_id"], 0) for run in runs)
    fitting = sum(1 for each in sums if each <= MOST_EVENTS)
    return runs[: max(1, fitting)]


async def _remove(connection: AsyncConnection, runs: Sequence[DictRow]) -> Removed:
    if not runs:
        return Removed()
    keys = _keys(runs)
    (outputs,) = await rows_of(connection, statements.DELETE_OUTPUTS, **keys)
    gone = await rows_of(connection, statements.DELETE_RUNS, **keys)
    await _leave_folders(connection, gone)
    (events,) = await rows_of(connection, statements.DELETE_EVENTS, **keys)
    await connection.execute(statements.DELETE_NOTICES, keys)
    await connection.execute(statements.DELETE_TAGS, keys)
    await connection.execute(statements.DELETE_DAGSTER_RUNS, keys)
    return Removed(runs=len(runs), events=events["events"], outputs=outputs["outputs"])


async def _leave_folders(connection: AsyncConnection, runs: Sequence[DictRow]) -> None:
    """Have what these runs may have put into the object store looked for, beside what they named.

    An attempt that was killed or cancelled between the object and its row leaves the object, and a
    process of a single run what it printed.
    """
    left = [
        (row["tenant"], outputs_folder(row["tenant"], row["run_id"]))
        for row in runs
        if row["cut_off"]
    ]
    if isolated := [row for row in runs if row["isolated"]]:
        from dynamic_jobs.compute_logs import logs_folder  # Dagster, which takes 0.5 s

        left += [(row["tenant"], logs_folder(row["run_id"])) for row in isolated]
    if not left:
        return
    tenants = [tenant for tenant, _ in left]
    folders = [folder + FOLDER_END for _, folder in left]
    await connection.execute(statements.LEAVE_FOLDERS, {"tenants": tenants, "folders": folders})


async def _remove_days(connection: AsyncConnection, tenants: Sequence[str]) -> Removed:
    days = {"tenants": list(tenants), "days": _DAYS_COUNTED}
    return Removed(tenant_days=(await connection.execute(statements.DELETE_DAYS, days)).rowcount)


def _keys(runs: Sequence[DictRow]) -> dict[str, list[str]]:
    return {
        "tenants": [row["tenant"] for row in runs],
        "run_ids": [row["run_id"] for row in runs],
    }
