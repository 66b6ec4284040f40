"""The table of docs/scale.md that says what was measured."""

from typing import Final

from bench.scale.costs import Costs, Sizes
from bench.scale.sizing import cold_pages
from bench.scale.table import first_run, markdown
from bench.support.figures import shown

_KILO: Final = 1e3
_MILLI: Final = 1e-3

_OF_A_RUN: Final = {
    "public.event_logs": "events of a run (`event_logs`)",
    "public.runs": "Dagster's row of it",
    "public.run_tags": "the tags of that",
    "graphwright.node_outputs": "its ten outputs",
    "graphwright.runs": "our row of it",
    "graphwright.audit": "its line in the audit log",
}


def measured(costs: Costs) -> str:
    """The costs, in groups."""
    rows = {**_bytes(costs), **_log(costs), **_others(costs)}
    return markdown(["", ""], [[title, value] for title, value in rows.items()])


def by_formula(costs: Costs) -> float:
    """Whole pages a run that the formula gives for what was measured."""
    return cold_pages(costs.spread, costs.spread.stored, costs.spread.runs)


def _bytes(costs: Costs) -> dict[str, str]:
    return {
        "**Bytes of rows, of indexes**": "",
        "a graph, without its versions": _sizes(costs.graph["graphwright.graphs"]),
        "a version": _sizes(costs.graph["graphwright.graph_versions"]),
        "snapshots of the job and plan of a version that has run": _sizes(first_run(costs)),
        **{title: _sizes(costs.run[name]) for name, title in _OF_A_RUN.items()},
    }


def _log(costs: Costs) -> dict[str, str]:
    spread, removal, packed = costs.spread, costs.removal, costs.removal_compressed
    return {
        "**Write-ahead log**": "",
        "a run, where one tenant has all, kB": _of(_KILO, costs.wal_bytes),
        f"whole pages more, where {shown(spread.tenants)} tenants are drawn at random, for each of "
        f"{spread.runs} runs between two checkpoints": shown(spread.pages),
        "the same by the formula below": shown(by_formula(costs)),
        "such a page, kB; with `wal_compression`": _of(
            _KILO, spread.page_bytes, spread.compressed_page_bytes
        ),
        "deleting an old run, kB": _of(_KILO, removal.wal_bytes),
        "of it whole pages": shown(removal.wal_pages),
        "vacuum after that, behind another checkpoint, kB": _of(_KILO, removal.vacuum_bytes),
        "whole pages of that": shown(removal.vacuum_pages),
        "deleting and vacuum with `wal_compression`, kB": _of(
            _KILO, packed.wal_bytes, packed.vacuum_bytes
        ),
    }


def _others(costs: Costs) -> dict[str, str]:
    roles = ", ".join(costs.cpu_seconds)
    return {
        "**Time**": "",
        f"processors of a run whose graph is at hand, ms: {roles}": _of(
            _MILLI, *costs.cpu_seconds.values()
        ),
        "the first run of a version, which no process has compiled": _of(
            _MILLI, *costs.first_cpu_seconds.values()
        ),
        "old runs removed a second, without pauses: the quickest batch, the median": _of(
            1, costs.removal.runs_a_second, costs.removal.median_runs_a_second
        ),
        "commits a run, under load": shown(costs.commits),
        "**Others**": "",
        "a connected SSE client, memory of the API, kB": _of(_KILO, costs.stream_bytes),
        "a run's events as JSON, kB; by zlib": _of(
            _KILO, costs.events.json_bytes, costs.events.zlib_bytes
        ),
    }


def _sizes(sizes: Sizes) -> str:
    return f"{round(sizes.rows):,}, {round(sizes.indexes):,}"


def _of(unit: float, *values: float) -> str:
    return ", ".join(shown(value / unit) for value in values)
