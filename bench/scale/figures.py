"""The numbers within the sentences of docs/scale.md, each by its name there."""

from collections.abc import Mapping
from typing import Final

from bench.scale.costs import Costs
from bench.scale.sizing import DAY, Machines, cold_pages
from bench.scale.table import GRAPHS, HELD, PLAYED, USERS, first_run, held, many, played, reached
from bench.support.figures import shown

_KILO: Final = 1e3
_MEGA: Final = 1e6
_GIGA: Final = 1e9
_TERA: Final = 1e12
_PERCENT: Final = 0.01


def figures(costs: Costs) -> Mapping[str, str]:
    """As the page shows them."""
    numbers = {**_asked(costs), **_chosen(), **_found(costs), **_of_a_run(costs)}
    return {
        "graphs": many(GRAPHS),
        "users": many(USERS),
        "graphs_held": many(HELD[1]),
        **{name: shown(value) for name, value in numbers.items()},
    }


def _asked(costs: Costs) -> dict[str, float]:
    demand, _ = played(costs)
    return {
        "graphs_a_user": demand.graphs / demand.users,
        "versions": demand.versions_a_graph,
        "versions_run": demand.ran_a_graph,
        "rate": PLAYED,
        "mean": demand.mean,
        "busiest": demand.busiest,
        "peak": demand.peak,
        "on_the_hour_percent": demand.on_the_hour / _PERCENT,
        "watching_percent": demand.watching / _PERCENT,
        "watchers": demand.watching * demand.users,
        "retention_days": demand.retention_days,
        "audit_days": demand.audit_days,
    }


def _chosen() -> dict[str, float]:
    machines = Machines()
    return {
        "cell_tb": machines.stored_bytes / _TERA,
        "restore_hours": machines.stored_bytes / machines.restored_bytes / 3_600,
        "restore_mb": machines.restored_bytes / _MEGA,
        "cell_log_mb": machines.log_bytes / _MEGA,
        "cell_operations": machines.page_operations,
        "cell_cores": machines.database_cores,
        "busy_percent": machines.busy / _PERCENT,
        "cache_gb": machines.cache_bytes / _GIGA,
        "checkpoint_minutes": machines.checkpoint / 60,
        "streams_gb": machines.stream_bytes / _GIGA,
        "worker_cores": machines.cores,
        "pool": machines.pool,
        "removing_percent": machines.removing / _PERCENT,
    }


def _found(costs: Costs) -> dict[str, float]:
    demand, sizing = played(costs)
    cells = sizing.machines["cells"]
    rows = "rows stored"
    return {
        "graphs_tb": held(costs, GRAPHS) / _TERA,
        "kept_bare": reached(costs, rows),
        "kept_beside": reached(costs, rows, HELD[1]),
        "borne": min(reached(costs, name) for name in sizing.limits if name != rows),
        "cells": cells,
        "database_machines": sizing.machines["database machines"],
        "worker_machines": sizing.machines["worker machines"],
        "cores": sum(sizing.cores.values()),
        "database_cores": sizing.cores["postgres"] / cells,
        "cores_of_workers": sizing.cores["worker"] / cells,
        "redis_cores": sizing.cores["valkey"],
        "watching_gb": demand.watching * demand.users * costs.stream_bytes / _GIGA,
        "removed": costs.removal.runs_a_second,
        "pace": costs.removal.runs_a_second * Machines().removing,
        "pace_of_median": costs.removal.median_runs_a_second * Machines().removing,
    }


def _of_a_run(costs: Costs) -> dict[str, float]:
    demand, sizing = played(costs)
    cold = cold_pages(
        costs.spread,
        demand.mean * DAY * demand.retention_days,
        demand.busiest * Machines().checkpoint,
    )
    removal = costs.removal.wal_bytes + costs.removal.vacuum_bytes
    operations = {name: each / demand.busiest for name, each in sizing.operations.items()}
    return {
        "run_kb": sum(each.all for each in costs.run.values()) / _KILO,
        "events_kb": costs.run["public.event_logs"].all / _KILO,
        "json_kb": costs.events.json_bytes / _KILO,
        "zlib_kb": costs.events.zlib_bytes / _KILO,
        "audit_kb": costs.run["graphwright.audit"].all / _KILO,
        "snapshots_kb": first_run(costs).all / _KILO,
        "log_kb": costs.wal_bytes / _KILO,
        "cold_pages": cold,
        "cold_kb": cold * costs.spread.page_bytes / _KILO,
        "removal_kb": removal / _KILO,
        "new_operations": operations["new rows"],
        "index_operations": operations["pages of indexes"],
        "removal_operations": operations["removal"],
    }
