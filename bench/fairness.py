"""What a tenant with 100,000 queued runs does to 20 others that trigger a run now and then.

Two worker processes. A run's delay is from its row's creation to its start, by the database's and
the worker's clocks, which are the same. Runs are queued by SQL, with all that the API makes of a
trigger but for its events and tags.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, LiteralString

from bench.support.figures import Figure, figure, milliseconds
from bench.support.graphs import CHAIN_10, chain
from bench.support.question import Aim, Answer, Question
from bench.support.site import Site, say
from dynamic_jobs.queueing.waking import WAKE
from foundation.database import Connection, connect

_HEAVY: Final = "heavy"
_LIGHT: Final = tuple(f"light-{number:02}" for number in range(20))
_QUEUED: Final = 100_000
_TRIGGERS: Final = 400
_SECONDS: Final = 20.0
_PATIENCE_SECONDS: Final = 60.0
_WORKERS: Final = 2
_RUNS_A_WORKER: Final = 32
"""The default of ``worker_runs``: so many may be claimed just before a light run comes."""

GRAPHS: Final[LiteralString] = """
WITH tenants AS (
    INSERT INTO graphwright.tenants (tenant) SELECT unnest(%(tenants)s::text[]) RETURNING tenant
), graphs AS (
    INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
    SELECT t.tenant, graph_id, name, version
    FROM tenants t, graphwright.graphs g WHERE g.tenant = 'default' AND g.name = %(graph)s
)
INSERT INTO graphwright.graph_versions (
    tenant, graph_version_id, graph_id, version, fingerprint, document, node_types, author
)
SELECT t.tenant, v.graph_version_id, graph_id, v.version, v.fingerprint, v.document, v.node_types,
    v.author
FROM tenants t, graphwright.graph_versions v JOIN graphwright.graphs g USING (tenant, graph_id)
WHERE g.tenant = 'default' AND g.name = %(graph)s
"""

# Copies of the one run that was triggered by REST.
QUEUE: Final[LiteralString] = f"""
WITH made AS MATERIALIZED (
    SELECT uuidv7() AS id, r.*, d.run_body, d.pipeline_name, d.snapshot_id
    FROM graphwright.runs r JOIN graphwright.graphs g USING (tenant, graph_id)
    JOIN runs d ON d.run_id = r.run_id::text, generate_series(1, %(count)s)
    WHERE r.tenant = 'default' AND g.name = %(graph)s
), ours AS (
    INSERT INTO graphwright.runs (
        tenant, run_id, sort_id, graph_id, graph_version_id, trigger, params, status, author
    )
    SELECT %(tenant)s, id, id, graph_id, graph_version_id, trigger, params, 'queued', author
    FROM made
), dagster AS (
    INSERT INTO runs (
        run_id, pipeline_name, status, run_body, snapshot_id, create_timestamp, update_timestamp
    )
    SELECT id::text, pipeline_name, 'QUEUED', replace(run_body, run_id::text, id::text),
        snapshot_id, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
    FROM made
), queued AS (
    INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state)
    SELECT id, %(tenant)s, graph_id, 'ready' FROM made
)
{WAKE}
"""

LEFT: Final[LiteralString] = """
SELECT count(*) AS count FROM graphwright.runs WHERE tenant = ANY(%s) AND ended_at IS NULL
"""

# Of each light run, its delay, and how many heavy ones started between its creation and its start.
DELAYS: Final[LiteralString] = """
SELECT extract(epoch FROM l.started_at - l.created_at)::float AS delay, (
    SELECT count(*) FROM graphwright.runs h
    WHERE h.tenant = %(heavy)s AND h.started_at BETWEEN l.created_at AND l.started_at
) AS overtaken
FROM graphwright.runs l
WHERE l.tenant = ANY(%(light)s) AND l.created_at > %(since)s AND l.status = 'succeeded'
"""

STARTED: Final[LiteralString] = """
SELECT count(*) AS count, count(*) FILTER (WHERE status = 'failed') AS failed
FROM graphwright.runs WHERE tenant = %s AND started_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """Of each light run: its delay in seconds, and how many heavy ones started meanwhile."""

    delays: Sequence[float]
    overtaken: Sequence[int]


def measure(site: Site) -> Answer:
    with site.stack(worker_processes=str(_WORKERS)) as stack:
        name = stack.post(chain(CHAIN_10))
        stack.many_of(chain(CHAIN_10), 1)
        with connect(stack.database) as database:
            database.execute(GRAPHS, {"tenants": [_HEAVY, *_LIGHT], "graph": name})
            _trigger(database, name, warm_up=True)
            alone = _trigger(database, name)
            database.execute(QUEUE, {"graph": name, "tenant": _HEAVY, "count": _QUEUED})
            database.execute("ANALYZE graphwright.runs")
            before, began = _started(database), time.perf_counter()
            beside = _trigger(database, name)
            rate = (_started(database) - before) / (time.perf_counter() - began)
            if _left(database, [_HEAVY]) == 0:
                raise RuntimeError("the heavy tenant has no run left: all of it was for nothing")
    return Answer({**_figures(alone, beside), "heavy runs": figure([rate], "/s")})


def _figures(alone: _Found, beside: _Found) -> dict[str, Figure]:
    return {
        "heavy runs started before it": figure(beside.overtaken, "", q=1.0),
        "p50": milliseconds(beside.delays),
        "p99": milliseconds(beside.delays, 0.99),
        "p50 without": milliseconds(alone.delays),
        "p99 without": milliseconds(alone.delays, 0.99),
    }


def _trigger(database: Connection, graph: str, *, warm_up: bool = False) -> _Found:
    """A run of one light tenant after the other, evenly over some seconds."""
    row = database.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    triggers = len(_LIGHT) if warm_up else _TRIGGERS
    begin = time.monotonic()
    for number in range(triggers):
        time.sleep(max(0.0, begin + number * _SECONDS / _TRIGGERS - time.monotonic()))
        tenant = _LIGHT[number % len(_LIGHT)]
        database.execute(QUEUE, {"graph": graph, "tenant": tenant, "count": 1})
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while left := _left(database, _LIGHT):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{left} runs of the light tenants have not ended")
        time.sleep(0.05)
    values = {"heavy": _HEAVY, "light": list(_LIGHT), "since": row["now"]}
    rows = database.execute(DELAYS, values).fetchall()
    if len(rows) != triggers:
        raise RuntimeError(f"of {triggers} light runs {len(rows)} succeeded")
    say(f"  {len(rows)} light runs")
    return _Found([row["delay"] for row in rows], [row["overtaken"] for row in rows])


def _left(database: Connection, tenants: Sequence[str]) -> int:
    row = database.execute(LEFT, (list(tenants),)).fetchone()
    assert row is not None
    return row["count"]


def _started(database: Connection) -> int:
    row = database.execute(STARTED, (_HEAVY,)).fetchone()
    assert row is not None
    if row["failed"]:
        raise RuntimeError(f"{row['failed']} heavy runs failed")
    return row["count"]


QUESTION: Final = Question(
    title="Delay of 20 light tenants' runs beside one tenant with 100,000 queued, two workers",
    aims=(Aim("heavy runs started before it", _WORKERS * _RUNS_A_WORKER, ""),),
    measure=measure,
)
