"""No query of the API may scan a big table, whatever the number of graphs and runs.

The API's readers and writers are driven over a real volume through a connection that records what
they send; each statement is then explained. A statement that none of these calls sends fails the
test too, so a new one needs a call in query_plans/.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer

import graph_defs
import live_api
from foundation.database import Connection, connect
from foundation.tenant_pool import BlockingTenantPool, blocking_tenant_sessions
from graph_defs.drafts import DraftStore
from graph_defs.store import GraphStore
from tests.live_api.query_plans.calls import use_drafts, use_graphs, use_runs, use_triggers
from tests.live_api.query_plans.recording import Recorded, Sent, recorded
from tests.live_api.query_plans.statements_of_runs import sent_for_runs
from tests.live_api.query_plans.statements_of_tenants import sent_for_tenants
from tests.live_api.query_plans.volume import volume_url

__all__ = ["recorded", "volume_url"]

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("query plans")]  # one big database

SMALL = {"migrations", "alembic_version", "workers", "placements"}
"""Tables with a row per release, per process, or per run that has a container or a pod now."""

QUERY_MODULES = [
    "dynamic_jobs.controlling.cancelling",
    "dynamic_jobs.controlling.graphs",
    "dynamic_jobs.controlling.pausing",
    "dynamic_jobs.controlling.rerunning",
    "dynamic_jobs.controlling.telling",
    "dynamic_jobs.queueing.holding",
    "dynamic_jobs.reading.event_log",
    "dynamic_jobs.creating.idempotency",
    "dynamic_jobs.creating.new_run",
    "dynamic_jobs.reading.runs",
    "dynamic_jobs.reading.stream",
    "foundation.secret_store.statements",
    "live_api.identity.statements",
    "schedules.backfills",
    "sensors.deliveries",
    "sensors.notice_list",
]
"""Besides everything in graph_defs and live_api."""

_OF_DAGSTER = re.compile(r"\b(FROM|JOIN|INTO|UPDATE) (event_logs|runs|run_tags)\b")
"""Tables that know no tenants."""
_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|AND|ORDER)\b")


async def test_no_query_of_the_api_scans_a_big_table(recorded: Recorded, volume_url: str) -> None:
    sent = recorded.sent
    await use_graphs(GraphStore(recorded.tenants, recorded.by_key))
    await use_drafts(DraftStore(recorded.tenants), GraphStore(recorded.tenants))
    run_id = await use_runs(recorded)
    await use_triggers(recorded.tenants)
    sent += sent_for_runs(run_id)
    sent += sent_for_tenants()
    with (
        connect(volume_url) as system,
        blocking_tenant_sessions(volume_url) as sessions,
    ):
        walled = BlockingTenantPool(sessions)
        scans: set[str] = set()
        for each in sent:
            if each.tenant is None:
                tables = _scanned(system, each)
            else:
                with walled.connection(each.tenant) as connection:
                    tables = _scanned(connection, each)
            scans |= {f"{table} in {each.statement}" for table in tables - SMALL}
    assert not scans, "\n".join(scans)
    alone = {
        each.statement
        for each in sent
        if each.tenant is not None
        and _OF_DAGSTER.search(each.statement)
        and "graphwright.runs" not in each.statement
    }
    assert not alone, f"not joined with what is behind the wall: {alone}"
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


def _scanned(connection: Connection, sent: Sent) -> set[str]:
    """The tables, partitions by the name of their whole, that the plan reads from end to end."""
    if sent.statement.startswith(("BEGIN", "COMMIT")):
        return set()
    statement: Any = sent.statement
    explain: Any = f"EXPLAIN (FORMAT JSON) {statement}"
    parameters = sent.parameters
    if sent.by_key and "set_config" not in sent.statement:
        query = PostgresQuery(Transformer(connection))
        query.convert(statement, parameters)
        explain, parameters = b"EXPLAIN (GENERIC_PLAN, FORMAT JSON) " + query.query, None
    row = connection.execute(explain, parameters, prepare=False).fetchone()
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
