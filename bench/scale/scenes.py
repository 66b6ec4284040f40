"""What runs of one cell wait for in its busiest hour: skewed tenants, a flood, the full hour.

A run passes the database's processors, then the queue of runs, which is held up by the log (workers
claim no faster than the event writer commits), then the workers' processors.
"""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from bench.scale.costs import Costs
from bench.scale.queueing import Discipline, Job, Station, simulate
from bench.scale.sizing import Demand, Machines, Sizing
from bench.support.figures import quantile

_SEED: Final = 7
_BEFORE: Final = 60.0
"""Seconds before the hour, and after which the flood comes."""
_SECONDS: Final = 300.0
_FLOOD: Final = 50_000
_FLOODING: Final = -1
"""The tenant that floods, who does nothing else."""


@dataclass(frozen=True, slots=True)
class Scene:
    title: str
    discipline: Discipline = "fair"
    flood: int = 0
    """Runs that one tenant triggers at once."""
    hour: bool = False
    """Timers start their part of the hour's runs at once."""
    jitter: float = 0.0
    """Seconds over which those timers' `jitter` spreads them."""


SCENES: Final = (
    Scene("tenants by Zipf"),
    Scene(f"one triggers {_FLOOD:,} at once, first come first served", "fifo", _FLOOD),
    Scene(f"one triggers {_FLOOD:,} at once, in turn", "fair", _FLOOD),
    Scene("the timers of the full hour", hour=True),
    Scene("the same, with a `jitter` of 10 minutes", hour=True, jitter=600.0),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """``seconds`` a run takes at each station, and how many servers that has."""

    tenants: int
    rate: float
    """Runs a second in the busiest hour, without those of the full hour."""
    burst: int
    """Runs that timers start in the first second of the hour."""
    seconds: tuple[float, float, float]
    servers: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """Seconds that runs of REST triggers waited, but for those of the tenant that floods."""

    median: float
    p99: float
    longest: float
    settled: float
    """Seconds after the hour until none waits for over a second any more."""


def cell_of(demand: Demand, sizing: Sizing, costs: Costs, machines: Machines) -> Cell:
    """One of equal cells."""
    cells = sizing.machines["cells"]
    rate = demand.busiest / cells
    workers = sizing.machines["worker machines"] // cells * machines.cores
    cpu = costs.first_cpu_seconds
    log = sizing.log_bytes / demand.busiest / machines.log_bytes
    return Cell(
        tenants=math.ceil(demand.users / cells),
        rate=rate * (1 - demand.on_the_hour),
        burst=round(rate * 3_600 * demand.on_the_hour),
        seconds=(cpu["postgres"], log, cpu["worker"]),
        servers=(machines.database_cores, 1, workers),
    )


def play(scene: Scene, cell: Cell, seconds: float = _SECONDS) -> Seen:
    """The same every time: what is random is drawn from one seed."""
    stations = [
        Station(count, scene.discipline if place == 1 else "fifo")
        for place, count in enumerate(cell.servers)
    ]
    waited: list[float] = []
    settled = 0.0
    for done in simulate(_jobs(scene, cell, seconds), stations):
        if done.job.at < _BEFORE:
            continue
        if done.job.kind == "rest":
            waited.append(done.waited)
        if done.waited > 1.0:
            settled = max(settled, done.at - _BEFORE)
    return Seen(quantile(waited, 0.5), quantile(waited, 0.99), max(waited), settled)


def _jobs(scene: Scene, cell: Cell, seconds: float) -> Iterator[Job]:
    draw = random.Random(_SEED)
    came = sorted(_BEFORE + draw.uniform(0, scene.jitter) for _ in range(cell.burst * scene.hour))
    timers = (_job(draw, cell, at, draw.randrange(cell.tenants), "timer") for at in came)
    flood = (_job(draw, cell, _BEFORE, _FLOODING, "flood") for _ in range(scene.flood))
    streams = (_poisson(draw, cell, _BEFORE + seconds), timers, flood)
    return heapq.merge(*streams, key=lambda job: job.at)


def _poisson(draw: random.Random, cell: Cell, until: float) -> Iterator[Job]:
    """Runs of tenants by Zipf's law with exponent 1: the n-th has 1/n of the first one's."""
    ranks = range(cell.tenants)
    shares = list(accumulate(1 / (rank + 1) for rank in ranks))
    at = 0.0
    while (at := at + draw.expovariate(cell.rate)) < until:
        yield _job(draw, cell, at, draw.choices(ranks, cum_weights=shares)[0], "rest")


def _job(draw: random.Random, cell: Cell, at: float, tenant: int, kind: str) -> Job:
    services = tuple(draw.expovariate(1 / seconds) for seconds in cell.seconds)
    return Job(at, tenant, services, kind)
