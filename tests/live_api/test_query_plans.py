"""No query of the API may scan a big table, whatever the number of graphs and runs.

The API's readers and writers are driven over a real volume through a connection that records what
they send; each statement is then explained. A statement that none of these calls sends fails the
test too, so a new one needs a call here.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg
import pytest
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

import graph_defs
import live_api
from dynamic_jobs import control
from dynamic_jobs.creating import new_run
from dynamic_jobs.reading.event_log import READ, read_events
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.reading.stream import NEWS
from foundation.database import Connection, connect
from foundation.errors import NotFound
from foundation.ids import NodeId, RunId, TenantId, new_id
from graph_defs.statements import VERSION_BY_ID
from graph_defs.store import GraphStore
from live_api.health import APPLIED
from tests import services

pytestmark = pytest.mark.anyio

SMALL = {"migrations", "workers"}
"""Tables with a row per release or per process."""

QUERY_MODULES = [
    "dynamic_jobs.control",
    "dynamic_jobs.reading.event_log",
    "dynamic_jobs.creating.new_run",
    "dynamic_jobs.reading.runs",
    "dynamic_jobs.reading.stream",
]
"""Besides everything in graph_defs and live_api."""

_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|AND|ORDER)\b")

TENANTS, GRAPHS, RUNS, EVENTS = 500, 30_000, 60_000, 240_000
TENANT = TenantId("tenant-7")

SEED: Any = f"""
INSERT INTO graphwright.tenants (tenant)
SELECT 'tenant-' || n FROM generate_series(0, {TENANTS - 1}) n;

INSERT INTO graphwright.graphs (tenant, graph_id, name, version)
SELECT 'tenant-' || n % {TENANTS}, md5('graph' || n)::uuid, 'graph-' || n, 1
  FROM generate_series(1, {GRAPHS}) n;

INSERT INTO graphwright.graph_versions
       (tenant, graph_version_id, graph_id, version, fingerprint, document, node_types, author)
SELECT tenant, md5(name)::uuid, graph_id, 1, sha256(name::bytea),
       '{{"metadata":{{"name":"' || name || '"}},"nodes":{{"a":{{}}}}}}', '{{}}', 'ann'
  FROM graphwright.graphs;

INSERT INTO graphwright.recent_graphs (graph_id, tenant)
SELECT graph_id, tenant FROM graphwright.graphs;

INSERT INTO graphwright.runs
       (tenant, run_id, sort_id, graph_id, graph_version_id, trigger, params, status, author)
SELECT 'tenant-' || n % {TENANTS}, md5('run' || n)::uuid, md5('run' || n)::uuid,
       md5('graph' || 1 + (n - 1) % {GRAPHS})::uuid, md5('graph-' || 1 + (n - 1) % {GRAPHS})::uuid,
       '{{"type": "rest"}}', '{{}}', CASE WHEN n % 20 > 0 THEN 'succeeded' ELSE 'failed' END,
       'ann'
  FROM generate_series(1, {RUNS}) n;

INSERT INTO graphwright.run_queue (run_id, tenant)
SELECT run_id, tenant FROM graphwright.runs LIMIT 10000;

INSERT INTO graphwright.node_outputs (tenant, run_id, node, value)
SELECT tenant, run_id, 'a', '1' FROM graphwright.runs;

INSERT INTO runs (run_id, pipeline_name, status, run_body, create_timestamp, update_timestamp)
SELECT run_id::text, 'job', 'SUCCESS', '{{}}', now(), now() FROM graphwright.runs;

INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key)
SELECT md5('run' || 1 + n % {RUNS})::uuid::text, '{{}}',
       (ARRAY['PIPELINE_ENQUEUED', 'STEP_START', 'STEP_SUCCESS', 'PIPELINE_SUCCESS'])
       [1 + n / {RUNS}],
       now(), CASE WHEN n / {RUNS} IN (1, 2) THEN 'a' END
  FROM generate_series(0, {EVENTS - 1}) n;
"""


@dataclass(frozen=True)
class Sent:
    statement: str
    parameters: Any


class Recorder(psycopg.AsyncConnection[DictRow]):
    """A connection that notes what it is asked."""

    sent: list[Sent]

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        self.sent.append(Sent(query, params))
        return await super().execute(query, params, **options)


@pytest.fixture(scope="module")
def volume_url(postgres_url: str, template_database: str) -> Generator[str]:
    with services.cloned_database(postgres_url, template_database) as url:
        with connect(url) as connection:
            connection.execute(SEED)
            connection.execute("VACUUM ANALYZE")
        yield url


@pytest.fixture
async def recorded(volume_url: str) -> AsyncGenerator[tuple[AsyncConnectionPool[Any], list[Sent]]]:
    sent: list[Sent] = []
    kind = type("Recording", (Recorder,), {"sent": sent})
    options = {"autocommit": True, "row_factory": dict_row}
    pool = AsyncConnectionPool(
        volume_url, kwargs=options, connection_class=kind, min_size=1, max_size=2, open=False
    )
    async with pool:
        yield pool, sent


async def test_no_query_of_the_api_scans_a_big_table(
    recorded: tuple[AsyncConnectionPool[Any], list[Sent]], volume_url: str
) -> None:
    pool, sent = recorded
    await _use_graphs(GraphStore(pool))
    run_id = await _use_runs(pool, sent)
    sent += _sent_by_threads(run_id)
    with connect(volume_url) as connection:
        scans = {
            f"{table} in {each.statement}"
            for each in sent
            for table in _scanned(connection, each) - SMALL
        }
    assert not scans, "\n".join(scans)
    unused = [
        name
        for name, text in _statements()
        if not any(text.strip() in each.statement for each in sent)
    ]
    assert not unused, f"no call here sends {', '.join(unused)}"


def test_a_scan_would_be_found(volume_url: str) -> None:
    query = "SELECT count(*) FROM graphwright.graphs WHERE description = 'x'"
    with connect(volume_url) as connection:
        assert _scanned(connection, Sent(query, None)) == {"graphs"}


async def _use_graphs(store: GraphStore) -> None:
    await store.ensure_tenant(TENANT)
    first = await store.list(TENANT, 20)
    await store.list(TENANT, 20, first.next_cursor)
    graph = await store.get(TENANT, first.items[0].name)
    await store.get(TENANT, graph.graph_id)
    for known in (graph.graph_id, graph.name):
        await store.published(TENANT, known)
    await store.version(TENANT, graph.graph_id)
    await store.version(TENANT, graph.graph_id, 1)
    for value in (1, 2):
        document: Any = {"metadata": {"name": "new"}, "nodes": {"a": {"value": value}}}
        await store.apply(TENANT, document, f"{value:064x}", {}, "ann")


async def _use_runs(pool: AsyncConnectionPool[Any], sent: list[Sent]) -> RunId:
    runs = RunStore(pool)
    page = await runs.list(TENANT, limit=20)
    first, last = page.items[0], page.items[-1]
    for graph in (None, first.graph_id):
        for status in (None, "failed", "succeeded"):
            for before in (None, last.run_id):
                await runs.list(TENANT, graph_id=graph, status=status, before=before, limit=20)
    await runs.get(TENANT, first.run_id)
    await runs.output(TENANT, first.run_id, NodeId("a"))
    with pytest.raises(NotFound):
        await runs.get(TenantId("tenant-8"), first.run_id)
    async with pool.connection() as connection:
        await read_events(connection, TENANT, first.run_id, EVENTS, 1_000)
        await connection.execute(NEWS, ([TENANT], [first.run_id], [0]))
        await connection.execute(APPLIED)
    # From the beginning, too: of the volume's events only the columns that are asked for are real.
    (latest,) = (each for each in sent if each.statement == READ)
    sent.append(Sent(READ, {**latest.parameters, "after": 0}))
    return first.run_id


def _sent_by_threads(run_id: RunId) -> list[Sent]:
    """What goes over connections that note nothing, and what makes a run, with fitting values."""
    new = new_id()
    version = {"tenant": TENANT, "graph_version_id": new}
    row: dict[str, Any] = {
        **version,
        **dict.fromkeys(("run_id", "sort_id", "graph_id"), new),
        **dict.fromkeys(("trigger", "params", "run_body", "event"), "{}"),
        **dict.fromkeys(("author", "job_name", "graph"), "x"),
        **{"tags": {}, "created_at": datetime.now(UTC), "priority": 0, "published": 1},
    }
    return [
        Sent(VERSION_BY_ID, version),
        Sent(new_run.CREATE, {"runs": orjson.dumps([row]).decode()}),
        Sent(control.STATUS, {"tenant": TENANT, "run_id": run_id}),
        Sent(control.DEQUEUE, (run_id,)),
        Sent(control.NOTIFY, (run_id,)),
        Sent(control.CANCELLING, ([TENANT], [run_id])),
    ]


def _scanned(connection: Connection, sent: Sent) -> set[str]:
    """The tables, partitions by the name of their whole, that the plan reads from end to end."""
    if sent.statement.startswith(("BEGIN", "COMMIT")):
        return set()
    explain: Any = f"EXPLAIN (FORMAT JSON) {sent.statement}"
    row = connection.execute(explain, sent.parameters).fetchone()
    assert row is not None
    plan = row["QUERY PLAN"]
    nodes = _nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return {
        re.sub(r"_\d+$", "", node["Relation Name"])
        for node in nodes
        if node["Node Type"] == "Seq Scan"
    }


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)


def _statements() -> Iterator[tuple[str, str]]:
    """Every constant with SQL, or a piece of it, in the modules that ask for the API."""
    names = list(QUERY_MODULES)
    for package in (graph_defs, live_api):
        names += [
            info.name for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        ]
    for module in map(importlib.import_module, names):
        for name, value in vars(module).items():
            public = name.isupper() and not name.startswith("_")
            if public and isinstance(value, str) and _SQL.match(value):
                yield f"{module.__name__}.{name}", value
