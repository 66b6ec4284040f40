"""Measures :class:`~bench.scale.costs.Costs` on this machine, with real services and processes."""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from bench.engines.web import run
from bench.scale.costs import Costs
from bench.scale.counting import commits, distance, grown, settle, sizes, written
from bench.scale.processors import a_run, least, used
from bench.scale.spreading import spread
from bench.scale.storing import DOCUMENT, store
from bench.support import services
from bench.support.fanout import start_runs
from bench.support.graphs import CHAIN_10, chain
from bench.support.machine import commit, this_machine
from bench.support.processes import Processes
from bench.support.site import Site, say
from foundation.database import connect

_GRAPHS: Final = 1_000_000
_TENANTS: Final = 10_000
_RUNS: Final = 20_000
_AT_ONCE: Final = 1_000
_STREAMS: Final = 2_000
_SETTLE_SECONDS: Final = 2.0
_OF_A_GRAPH: Final = ("graphwright.graphs", "graphwright.graph_versions")


def measure() -> Costs:
    """Takes some ten minutes and 10 GB in TMPDIR, which must be on a disk."""
    measured = commit()
    with tempfile.TemporaryDirectory(prefix="gw-scale-") as name:
        folder = Path(name)
        with services.running(folder / "servers") as servers:
            machine = this_machine(folder, servers.postgres)
            (folder / "logs").mkdir()
            processes = Processes(folder / "logs")
            try:
                site = Site(folder, servers, processes, ())
                found: dict[str, Any] = {
                    **_graphs(site),
                    **_runs(site),
                    **spread(site),
                    **_streams(site),
                }
            finally:
                processes.close()
    return Costs(cpu=machine.cpu, commit=measured, measured_on=datetime.now(UTC).date(), **found)


def _graphs(site: Site) -> dict[str, Any]:
    """What a stored graph takes."""
    with site.quiet(), site.api() as api, connect(api.database) as database:
        before = sizes(database)
        store(database, _GRAPHS, _TENANTS)
        settle(database)
        stored = grown(before, sizes(database), _GRAPHS)
    say(f"  {_GRAPHS:,} graphs are stored")
    return {
        "graphs": _GRAPHS,
        "tenants": _TENANTS,
        "document_bytes": len(DOCUMENT),
        "graph": {name: stored[name] for name in _OF_A_GRAPH},
    }


def _runs(site: Site) -> dict[str, Any]:
    """What a run takes whose graph is at hand: processors by role, log, commits."""
    with (
        site.quiet(),
        site.roles(worker_processes="1") as roles,
        connect(roles.client.database) as database,
    ):
        roles.start("worker")
        roles.client.many_of(chain(CHAIN_10), _AT_ONCE)  # to warm up
        settle(database)
        begin, committed = written(database), commits(database)
        rounds: list[dict[str, float]] = []
        for _ in range(_RUNS // _AT_ONCE):
            cpu = used(roles, site.services, database)
            roles.client.many_of(chain(CHAIN_10), _AT_ONCE)
            rounds.append(a_run(cpu, used(roles, site.services, database), _AT_ONCE))
        time.sleep(_SETTLE_SECONDS)  # what belongs to the last ones
        log, committed_after = distance(database, begin), commits(database)
    say(f"  {_RUNS:,} runs have ended")
    return {
        "runs": _RUNS,
        "cpu_seconds": least(rounds),
        "wal_bytes": log / _RUNS,
        "commits": (committed_after - committed) / _RUNS,
    }


def _streams(site: Site) -> dict[str, Any]:
    """What a connected SSE client adds to the memory of the API."""
    with site.quiet(), site.roles() as roles:
        api = roles.client
        (run_id,) = start_runs(api, 1)
        process = psutil.Process(roles.pid("api"))

        async def connected() -> float:
            async with AsyncExitStack() as open_ones:
                before = 0
                for number in range(_STREAMS + _STREAMS // 10):
                    if number == _STREAMS // 10:  # the first ones grow what all share
                        before = process.memory_full_info().uss
                    http = await open_ones.enter_async_context(api.http())
                    request = http.get(f"/api/v1/runs/{run_id}/events", "text/event-stream")
                    await anext(aiter(http.stream(request)))
                await asyncio.sleep(_SETTLE_SECONDS)
                return (process.memory_full_info().uss - before) / _STREAMS

        return {"stream_bytes": run(connected())}
