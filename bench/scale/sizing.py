"""How many machines and cells a demand needs: arithmetic over measured costs, nothing random."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.scale.costs import Costs, Spread
from bench.scale.queueing import touched

DAY: Final = 86_400.0
_PAGE: Final = 8_192
_AUDIT: Final = "graphwright.audit"
_EVENTS: Final = "public.event_logs"


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for. A user is a tenant of its own here: the worst case for locality."""

    users: float
    graphs: float
    runs_a_user_a_day: float
    versions_a_graph: float = 3.0
    ran_a_graph: float = 1.0
    """Versions of it that have run at some time."""
    peak: float = 3.0
    """The busiest hour against the mean."""
    on_the_hour: float = 0.1
    """The part of an hour's runs that timers start in its first second."""
    retention_days: float = 30.0
    audit_days: float = 365.0
    """How far the audit log reaches back, from which nothing is removed."""
    watching: float = 0.01
    """The part of the users that follow a run at the busiest time."""

    @property
    def mean(self) -> float:
        """Runs a second."""
        return self.users * self.runs_a_user_a_day / DAY

    @property
    def busiest(self) -> float:
        return self.mean * self.peak


@dataclass(frozen=True, slots=True)
class Machines:
    """What one machine of each role is taken to bear: choices, not measurements."""

    cores: int = 16
    database_cores: int = 32
    busy: float = 0.6
    """The part of the cores that may be busy in the busiest hour."""
    log_bytes: float = 100e6
    """Write-ahead log a second that a primary, its standby and its archive keep up with."""
    stored_bytes: float = 8e12
    """What one primary may hold, so that a backup is restored in a working day."""
    restored_bytes: float = 300e6
    """A second, from a backup."""
    page_operations: float = 40_000.0
    """Reads and writes of pages a second."""
    written: float = 1.5
    """Writes to data files of each page of new rows: again when it was not yet full."""
    removing: float = 0.05
    """The part of its time that a database's one walk over old runs works (docs/storage.md)."""
    dead: float = 0.2
    dead_rows: float = 100e6
    """Autovacuum comes when that part of a table is dead, or so many rows: by default."""
    cache_bytes: float = 128e9
    """Memory of a database machine that indexes may fill: half of 256 GB."""
    checkpoint: float = 900.0
    """Seconds between checkpoints."""
    stream_bytes: float = 2e9
    """Memory of one API process that streams may take."""
    pool: int = 44
    """PostgreSQL connections of an API or worker process: the most that an API's pools have."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a demand needs in all, and in how many cells each limit divides it."""

    stored: Mapping[str, float]
    """Bytes, by what they are of."""
    daily_bytes: float
    log: Mapping[str, float]
    """Bytes a second in the busiest hour, by what they are of."""
    operations: Mapping[str, float]
    """Pages read and written a second in the busiest hour, by why."""
    cores: Mapping[str, float]
    """Busy in the busiest hour, by role."""
    cells: Mapping[str, float]
    """By limit; not rounded up."""
    machines: Mapping[str, int]
    connections: int
    """Of one cell."""

    @property
    def log_bytes(self) -> float:
        return sum(self.log.values())

    @property
    def limits(self) -> list[str]:
        """The limits, the one first that is reached first."""
        return sorted(self.cells, key=lambda name: -self.cells[name])


def size(demand: Demand, costs: Costs, machines: Machines) -> Sizing:
    """Cells are equal. Each has a primary and a standby, which bears no load."""
    daily = demand.mean * DAY
    kept = daily * demand.retention_days
    dead = _dead(demand, costs, machines)
    stored = _stored(demand, costs, machines, dead)
    cold = cold_pages(costs.spread, kept, demand.busiest * machines.checkpoint)
    removal = costs.removal
    log = {
        "own rows of runs": demand.busiest * costs.wal_bytes,
        "whole pages of indexes": demand.busiest * cold * costs.spread.page_bytes,
        "removal": demand.mean * (removal.wal_bytes + removal.vacuum_bytes),
    }
    cores = {role: demand.busiest * seconds for role, seconds in costs.first_cpu_seconds.items()}
    cells = {
        "rows stored": sum(stored.values()) / machines.stored_bytes,
        "write-ahead log": sum(log.values()) / machines.log_bytes,
        "database cores": cores["postgres"] / (machines.database_cores * machines.busy),
        "removal of old runs": demand.mean / (removal.runs_a_second * machines.removing),
    }
    cached = max(1.0, *cells.values()) * machines.cache_bytes
    written = costs.commits + costs.wal_bytes / _PAGE * machines.written
    met = cold * (1 + _not_cached(costs.spread, kept, cached))
    # Each page is read, deleted from and written, and some time later vacuumed in the same way; and
    # vacuum reads all indexes.
    removed = 2 * (removal.wal_pages + removal.vacuum_pages) + (
        costs.run[_EVENTS].indexes / _PAGE / dead
    )
    operations = {
        "new rows": demand.busiest * written,
        "pages of indexes": demand.busiest * met,
        "removal": demand.mean * removed,
    }
    cells["page operations"] = sum(operations.values()) / machines.page_operations
    count = max(1, math.ceil(max(cells.values())))
    found = _machines(demand, costs, machines, cores, count)
    processes = found["api processes"] + found["worker machines"] * machines.cores
    return Sizing(
        stored=stored,
        daily_bytes=daily * sum(each.all for each in costs.run.values()),
        log=log,
        operations=operations,
        cores=cores,
        cells=cells,
        machines=found,
        connections=math.ceil(processes / count) * machines.pool,
    )


def _stored(demand: Demand, costs: Costs, machines: Machines, dead: float) -> dict[str, float]:
    """``dead`` is the part of the events that waits for vacuum, beside those that are kept."""
    daily = demand.mean * DAY
    kept = daily * demand.retention_days
    own = {name: each.all for name, each in costs.run.items()}
    # Each publication has a line in the audit log, as each trigger has.
    version = costs.graph["graphwright.graph_versions"].all + own[_AUDIT]
    first_run = sum(each.all for each in costs.first_run.values())
    graph = costs.graph["graphwright.graphs"].all + demand.versions_a_graph * version
    others = sum(own.values()) - own[_EVENTS] - own[_AUDIT]
    return {
        "graphs": demand.graphs * graph,
        "snapshots of versions that ran": demand.graphs * demand.ran_a_graph * first_run,
        "events": kept * own[_EVENTS] * (1 + dead),
        "other rows of runs": kept * others * (1 + machines.dead),
        "audit log of runs": daily * demand.audit_days * own[_AUDIT],
    }


def _dead(demand: Demand, costs: Costs, machines: Machines) -> float:
    """The part of one database's events that is dead when autovacuum comes."""
    kept = demand.mean * DAY * demand.retention_days
    databases = max(1.0, sum(_stored(demand, costs, machines, 0).values()) / machines.stored_bytes)
    return min(machines.dead, machines.dead_rows / (kept / databases * costs.removal.events))


def cold_pages(spread: Spread, stored: float, writes: float) -> float:
    """Index pages that a run is the first to write to since a checkpoint. Each goes to the log
    whole, and is written back for this one entry.

    Args:
        stored: runs that are kept.
        writes: runs between two checkpoints.
    """
    met = (
        touched(stored / spread.stored * tree.pages, writes * tree.places)
        for tree in spread.trees.values()
    )
    return sum(met) / writes


def _not_cached(spread: Spread, stored: float, cached: float) -> float:
    """The part of the pages of those indexes that is read before it is written to."""
    pages = sum(tree.pages for tree in spread.trees.values()) * stored / spread.stored
    return max(0.0, 1 - cached / (pages * _PAGE))


def _machines(
    demand: Demand, costs: Costs, machines: Machines, cores: Mapping[str, float], cells: int
) -> dict[str, int]:
    usable = machines.cores * machines.busy
    streaming = demand.users * demand.watching * costs.stream_bytes
    # An API process is busy on one core.
    api = max(cores["api"] / machines.busy, streaming / machines.stream_bytes, 2 * cells)
    return {
        "cells": cells,
        "database machines": 2 * cells,
        "api processes": math.ceil(api),
        "worker machines": max(cells, math.ceil(cores["worker"] / usable)),
        "redis machines": 2 * cells,
    }
