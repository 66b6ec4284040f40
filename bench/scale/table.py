"""The tables of docs/scale.md that compare demands, limits, remedies and scenes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from bench.scale.costs import Costs, Sizes
from bench.scale.scenes import SCENES, cell_of, play
from bench.scale.sizing import DAY, Demand, Machines, Sizing, size
from bench.support.figures import shown

USERS: Final = 1e6
GRAPHS: Final = 1e9
RATES: Final = (1.0, 24.0, 240.0)
"""Runs a user a day."""
PLAYED: Final = 24.0
HELD: Final = (0.0, 125e6, 500e6, 1e9)
"""Graphs in one database."""
_LEAST: Final = 1e-6
_MOST: Final = 1e6
"""Between which a limit is looked for, in runs a second."""
_HALVINGS: Final = 60


def demands() -> list[Demand]:
    return [Demand(USERS, GRAPHS, rate) for rate in RATES]


def played(costs: Costs) -> tuple[Demand, Sizing]:
    """The demand that most of the page is about."""
    demand = Demand(USERS, GRAPHS, PLAYED)
    return demand, size(demand, costs, Machines())


def compressed(costs: Costs) -> Costs:
    """With ``wal_compression``."""
    spread = costs.spread.model_copy(
        update={"page_bytes": costs.spread.compressed_page_bytes},
    )
    removal = costs.removal_compressed.model_copy(
        update={"runs_a_second": costs.removal.runs_a_second}
    )
    return costs.model_copy(update={"spread": spread, "removal": removal})


def sizes(costs: Costs) -> str:
    """What each rate needs."""
    machines = Machines()
    found = [(demand, size(demand, costs, machines)) for demand in demands()]
    rows = [
        ["Runs a second, mean", *(shown(demand.mean) for demand, _ in found)],
        ["in the busiest hour", *(shown(demand.busiest) for demand, _ in found)],
        *_each(found, "stored", "Stored, {}, TB", 1e12),
        [
            "Grows a day until retention sets in, GB",
            *(shown(s.daily_bytes / 1e9) for _, s in found),
        ],
        *_each(found, "log", "Write-ahead log, {}, MB/s", 1e6),
        *_each(found, "operations", "Page reads and writes a second, {}", 1),
        *_each(found, "cores", "Cores busy, {}", 1),
        *_each(found, "cells", "Cells for {}", 1),
        *_each(found, "machines", "**{}**", 1),
        ["PostgreSQL connections a cell", *(shown(s.connections) for _, s in found)],
    ]
    head = ["Runs a user a day", *(shown(demand.runs_a_user_a_day) for demand, _ in found)]
    return markdown(head, rows)


def _each(
    found: Sequence[tuple[Demand, Sizing]], field: str, title: str, unit: float
) -> Iterable[list[str]]:
    for name in getattr(found[0][1], field):
        values = (getattr(sizing, field)[name] / unit for _, sizing in found)
        yield [title.format(name), *(shown(value) for value in values)]


def bottlenecks(costs: Costs) -> str:
    """Of each limit, at how many runs a second one database reaches it that holds no graphs."""
    _, sizing = played(costs)
    rows = [
        [str(place), name, shown(reached(costs, name))]
        for place, name in enumerate(sizing.limits, 1)
    ]
    return markdown(["", "Limit", "Runs a second, mean"], rows)


def room(costs: Costs) -> str:
    """How many runs a second one database can keep beside so many graphs."""
    rows = [
        [
            many(graphs),
            shown(held(costs, graphs) / 1e12),
            _rate(reached(costs, "rows stored", graphs)),
        ]
        for graphs in HELD
    ]
    return markdown(["Graphs", "TB of them", "Runs a second, mean, kept beside"], rows)


def _rate(rate: float) -> str:
    return shown(rate) if rate else "none"


def first_run(costs: Costs) -> Sizes:
    """What the first run of a version leaves for good, in all tables."""
    each = costs.first_run.values()
    return Sizes(rows=sum(one.rows for one in each), indexes=sum(one.indexes for one in each))


def held(costs: Costs, graphs: float) -> float:
    """Bytes of graphs, and of what stays of their having run."""
    stored = size(Demand(USERS, graphs, PLAYED), costs, Machines()).stored
    return stored["graphs"] + stored["snapshots of versions that ran"]


def reached(costs: Costs, limit: str, graphs: float = 0.0) -> float:
    """Runs a second in the mean with which one database reaches a limit; 0 if it is past it."""
    low, high = 0.0, _MOST
    for _ in range(_HALVINGS):
        mean = (low + high) / 2
        cells = size(Demand(USERS, graphs, mean * DAY / USERS), costs, Machines()).cells
        low, high = (low, mean) if cells[limit] > 1 else (mean, high)
    return low if low > _LEAST else 0.0


def remedies(costs: Costs) -> str:
    """What makes the log of :data:`PLAYED` runs a user a day less."""
    demand, now = played(costs)
    machines = Machines()
    packed = compressed(costs)
    by_day = size(replace(demand, retention_days=1), costs, machines).log
    found: Mapping[str, Mapping[str, float]] = {
        "as it is": now.log,
        "a checkpoint each hour": size(demand, costs, replace(machines, checkpoint=3_600)).log,
        "`wal_compression`": size(demand, packed, machines).log,
        "partitions by day, dropped whole": {
            **now.log,
            "whole pages of indexes": by_day["whole pages of indexes"],
            "removal": 0.0,
        },
    }
    rows = [
        [
            name,
            *(shown(value / 1e6) for value in (*log.values(), sum(log.values()))),
            shown(demand.mean * machines.log_bytes / sum(log.values())),
        ]
        for name, log in found.items()
    ]
    head = [f"Log, MB/s, at {shown(PLAYED)} runs a user a day", *now.log, "all"]
    return markdown([*head, "runs a second, mean, of one cell"], rows)


def scenes(costs: Costs) -> str:
    demand, sizing = played(costs)
    cell = cell_of(demand, sizing, costs, Machines())
    rows: list[list[str]] = []
    for scene in SCENES:
        seen = play(scene, cell)
        waits = (shown(each * 1_000) for each in (seen.median, seen.p99, seen.longest))
        rows.append([scene.title, *waits, shown(round(seen.settled))])
    head = ["", "p50, ms", "p99, ms", "longest, ms", "settled after, s"]
    return markdown(head, rows)


def many(count: float) -> str:
    """1 billion, 125 million."""
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{shown(count / unit)} {name}"
    return shown(count)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))
