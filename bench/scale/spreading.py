"""Runs of many tenants at random: their bytes, what their log has more, what a first run takes."""

import asyncio
import contextlib
import random
import time
import zlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, LiteralString

from bench.engines.roles import Roles
from bench.engines.web import run
from bench.scale.costs import Removal, Spread, Tree
from bench.scale.counting import Log, grown, leaves, log_since, settle, sizes, written
from bench.scale.processors import a_run, least, used
from bench.scale.removing import remove
from bench.scale.storing import store
from bench.support.http import Http
from bench.support.site import Site, say
from foundation.database import Connection, connect
from live_api.identity import issue_token, signing_key

_TENANTS: Final = 2_000
_AT_ONCE: Final = 200
_STORED: Final = 20_000
_ROUNDS: Final = 20
_BETWEEN: Final = 100
"""Runs between two checkpoints: few, so that the pages they meet are not all the same ones."""
_REMOVED: Final = 0.2
"""Autovacuum comes when a fifth of a table is dead."""
_REPEATED: Final = 2
_CONNECTIONS: Final = 32
_POLL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 300.0

# How many of a run's entries lie apart. Those of one tenant and status, of one tenant and graph,
# and so on, lie together; of its tags four say whose it is, and of which graph and version.
PLACES: Final[Mapping[str, int]] = {
    "graphwright.runs_pkey": 1,
    "graphwright.runs_by_age": 1,
    "graphwright.runs_of_graph": 1,
    "graphwright.runs_by_status": 1,
    "graphwright.runs_by_event": 1,
    "graphwright.node_outputs_pkey": 1,
    "graphwright.audit_pkey": 1,
    "graphwright.audit_of_subject": 1,
    "graphwright.audit_of_action": 1,
    "public.idx_runs_by_job": 1,
    "public.idx_run_tags": 4,
}
_OF_A_VERSION: Final = ("public.snapshots", "public.kvs")
"""Snapshots of a version's job and plan, and a note which ones these are."""

LEFT: Final[LiteralString] = """
SELECT count(*) FILTER (WHERE ended_at IS NULL) AS under_way,
    count(*) FILTER (WHERE ended_at IS NOT NULL AND status <> 'succeeded') AS failed
FROM graphwright.runs
"""
EVENTS: Final[LiteralString] = """
SELECT event FROM event_logs
WHERE run_id = (SELECT run_id FROM event_logs ORDER BY id DESC LIMIT 1) ORDER BY id
"""
RELOAD: Final[LiteralString] = "SELECT pg_reload_conf()"


def spread(site: Site) -> dict[str, Any]:
    """These of :class:`~bench.scale.costs.Costs`: ``run``, ``events``, ``first_run``,
    ``first_cpu_seconds``, ``spread``, ``removal`` and ``removal_compressed``."""
    folder = site.folder / "spread"
    environment = {
        **site.environment("bench_spread"),
        "GRAPHWRIGHT_WORKER_PROCESSES": "1",
        "GRAPHWRIGHT_COMPILED_JOBS": str(2 * _TENANTS),  # or each run would be a first one
    }
    with (
        site.quiet(),
        contextlib.closing(Roles(site.processes, folder, environment, "spread")) as roles,
        connect(roles.client.database) as database,
        _set(database, "ALTER SYSTEM SET autovacuum = off"),
    ):
        roles.start("worker")
        store(database, _TENANTS, _TENANTS)
        triggers = _triggers(roles, folder)
        found = {**_first(site, roles, database, triggers), **_next(roles, database, triggers)}
        roles.end("worker")
        found.update(_removals(database, roles.client.database))
        return found


def _removals(database: Connection, url: str) -> dict[str, Removal]:
    """Bytes are of the first one; as its pace counts that of the least disturbed."""
    share = round(_STORED * _REMOVED)
    plain = [asyncio.run(remove(database, url, share))]
    with _set(database, "ALTER SYSTEM SET wal_compression = on"):
        compressed = asyncio.run(remove(database, url, share))
    plain += [asyncio.run(remove(database, url, share)) for _ in range(_REPEATED)]
    best = max(plain, key=lambda each: each.runs_a_second)
    rates = {name: getattr(best, name) for name in ("runs_a_second", "median_runs_a_second")}
    return {"removal": plain[0].model_copy(update=rates), "removal_compressed": compressed}


@contextlib.contextmanager
def _set(database: Connection, statement: LiteralString) -> Generator[None]:
    """With another setting of the server."""
    database.execute(statement)
    database.execute(RELOAD)
    try:
        yield
    finally:
        database.execute(statement.replace(" SET ", " RESET ").partition(" = ")[0])
        database.execute(RELOAD)


def _triggers(roles: Roles, folder: Path) -> list[bytes]:
    """A request for each tenant, that starts its graph."""
    key = signing_key(folder)
    http = Http(roles.client.base)
    return [
        http.post(
            f"/api/v1/graphs/graph-{number}/runs",
            b"{}",
            headers={"Authorization": f"Bearer {issue_token(key, f'tenant-{number}', 'bench')}"},
        )
        for number in range(_TENANTS)
    ]


def _first(
    site: Site, roles: Roles, database: Connection, triggers: Sequence[bytes]
) -> dict[str, Any]:
    """The first run of each version, which no process has compiled yet."""
    settle(database)
    before = sizes(database)
    rounds: list[dict[str, float]] = []
    for begin in range(0, len(triggers), _AT_ONCE):
        cpu = used(roles, site.services, database)
        _run(roles, database, triggers[begin : begin + _AT_ONCE])
        rounds.append(a_run(cpu, used(roles, site.services, database), _AT_ONCE))
    settle(database)
    left = grown(before, sizes(database), len(triggers))
    say(f"  {len(triggers):,} graphs have run for the first time")
    return {
        "first_run": {name: left[name] for name in _OF_A_VERSION},
        "first_cpu_seconds": least(rounds),
    }


def _next(roles: Roles, database: Connection, triggers: Sequence[bytes]) -> dict[str, Any]:
    draw = random.Random(7)
    before, count = sizes(database), _STORED - len(triggers)
    _run(roles, database, draw.choices(triggers, k=count))
    settle(database)
    kept = grown(before, sizes(database), count)
    say(f"  {_STORED:,} runs of {len(triggers):,} tenants have ended")
    events = "".join(row["event"] for row in database.execute(EVENTS).fetchall()).encode()
    return {
        "run": kept,
        "events": {"json_bytes": len(events), "zlib_bytes": len(zlib.compress(events))},
        "spread": _more_pages(roles, database, triggers, draw),
    }


def _more_pages(
    roles: Roles, database: Connection, triggers: Sequence[bytes], draw: random.Random
) -> Spread:
    """One tenant and all others, in turn: nothing but the places of their entries differs."""
    trees = {
        name: Tree(places=places, pages=leaves(database, name)) for name, places in PLACES.items()
    }
    same = apart = compressed = Log()
    for _ in range(_ROUNDS):
        same += _logged(roles, database, [triggers[0]] * _BETWEEN)
        apart += _logged(roles, database, draw.choices(triggers[1:], k=_BETWEEN))
        with _set(database, "ALTER SYSTEM SET wal_compression = on"):
            compressed += _logged(roles, database, draw.choices(triggers[1:], k=_BETWEEN))
    return Spread(
        tenants=len(triggers),
        stored=_STORED,
        runs=_BETWEEN,
        pages=(apart.pages - same.pages) / _ROUNDS / _BETWEEN,
        page_bytes=apart.page_bytes / apart.pages,
        compressed_page_bytes=compressed.page_bytes / compressed.pages,
        trees=trees,
    )


def _logged(roles: Roles, database: Connection, requests: Sequence[bytes]) -> Log:
    """The log of these runs, right after a checkpoint."""
    database.execute("CHECKPOINT")
    begin = written(database)
    _run(roles, database, requests)
    return log_since(database, begin)


def _run(roles: Roles, database: Connection, requests: Sequence[bytes]) -> None:
    """Have all of these runs made, and wait for their end. Raises RuntimeError if one fails."""
    run(_send(roles.client.base, requests))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        left = database.execute(LEFT).fetchone()
        assert left is not None
        if left["failed"] or time.monotonic() > deadline:
            raise RuntimeError(f"not all runs have succeeded: {left}")
        if not left["under_way"]:
            return
        time.sleep(_POLL_SECONDS)


async def _send(base: str, requests: Sequence[bytes]) -> None:
    left = iter(requests)

    async def one() -> None:
        async with Http(base) as http:
            for request in left:
                await http.send(request)

    await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))
