"""Deliveries with their keys, and backfills: they go by their age, never before their verdict."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dynamic_jobs.retention import aged, aged_statements, pruning, walk
from dynamic_jobs.retention.pruning import Pruner
from dynamic_jobs.retention.removed import Removed
from dynamic_jobs.retention.statements import BY_INDEX
from foundation.database import Connection, connect
from foundation.ids import new_id
from foundation.settings import Settings
from tests.dynamic_jobs.retention.conftest import prune, sort_id

KEPT = {"short": 3, "usual": None, "long": 90, "unknown": None}
"""Tenants without any run, and their own days; ``unknown`` has no row. The others' days are 30."""
REFUSED_DAYS = 7


@dataclass(frozen=True)
class Delivery:
    tenant: str
    verdict: str
    decided: float
    """Days ago; of a pending one, when it came."""
    waited: float
    size: int

    @property
    def days(self) -> float:
        return KEPT[self.tenant] or 30

    @property
    def is_walked_to(self) -> bool:
        return self.verdict != "pending" and self.decided > self.days

    @property
    def goes(self) -> bool:
        refused = self.verdict == "refused" and self.decided + self.waited > REFUSED_DAYS
        return self.is_walked_to or refused


deliveries = st.builds(
    Delivery,
    tenant=st.sampled_from(sorted(KEPT)),
    verdict=st.sampled_from(["pending", "started", "filtered", "rejected", "refused"]),
    # Not within the seconds that the test takes.
    decided=st.sampled_from([0.5, 2.5, 3.5, 6.5, 7.5, 29.5, 30.5, 89.5, 90.5, 400.0]),
    waited=st.sampled_from([0.0, 1.0, 60.0]),
    size=st.integers(0, 20),
)


def insert(connection: Connection, delivery: Delivery) -> str:
    received = delivery.decided + delivery.waited
    delivery_id = sort_id(received)
    connection.execute(
        "INSERT INTO graphwright.deliveries (tenant, delivery_id, trigger_id, graph_id,"
        " received_at, headers, query, body, verdict, decided_at) VALUES (%s, %s, %s, %s,"
        " now() - %s * interval '1 day', '{}', '{}', %s, %s,"
        " CASE WHEN %s THEN now() - %s * interval '1 day' END)",
        (
            delivery.tenant, delivery_id, new_id(), new_id(), received, b"x" * delivery.size,
            delivery.verdict, delivery.verdict != "pending", delivery.decided,
        ),
    )  # fmt: skip
    return delivery_id


def keep_days(connection: Connection) -> None:
    connection.execute("DELETE FROM graphwright.tenants WHERE tenant <> ''")
    for tenant, days in KEPT.items():
        if tenant != "unknown":
            connection.execute(
                "INSERT INTO graphwright.tenants (tenant, retention_days) VALUES (%s, %s)",
                (tenant, days),
            )


def stored(connection: Connection) -> set[str]:
    rows = connection.execute("SELECT delivery_id::text FROM graphwright.deliveries")
    return {row["delivery_id"] for row in rows}


@hypothesis_settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    given_ones=st.lists(deliveries, max_size=20),
    most_rows=st.sampled_from([1, 2, 5, 1_000]),
    most_tenants=st.sampled_from([1, 2, 1_000]),
    most_bytes=st.sampled_from([0, 30, 2**20]),
)
def test_only_deliveries_that_should_go_go(
    settings: Settings,
    given_ones: Sequence[Delivery],
    most_rows: int,
    most_tenants: int,
    most_bytes: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch, connect(settings.database_url) as connection:
        patch.setattr(aged, "MOST_ROWS", most_rows)
        patch.setattr(walk, "MOST_TENANTS", most_tenants)
        patch.setattr(aged, "MOST_BYTES", most_bytes)
        connection.execute("DELETE FROM graphwright.deliveries")
        keep_days(connection)
        ids = {insert(connection, delivery): delivery for delivery in given_ones}

        counted = prune(settings, dry_run=True)
        assert counted == Removed(deliveries=sum(each.is_walked_to for each in given_ones))
        assert stored(connection) == set(ids), "a dry run removes nothing"

        assert prune(settings) == Removed(deliveries=sum(each.goes for each in given_ones))
        assert stored(connection) == {each for each, spec in ids.items() if not spec.goes}
        assert prune(settings) == Removed()


def test_for_ever_is_not_for_refused_calls(settings: Settings, connection: Connection) -> None:
    for verdict in ("started", "refused"):
        insert(connection, Delivery("usual", verdict, 400, 0, 1))
    for_ever = settings.model_copy(update={"retention_days": 0})
    assert prune(for_ever) == Removed(deliveries=1)
    (left,) = connection.execute("SELECT verdict FROM graphwright.deliveries")
    assert left == {"verdict": "started"}


def test_batches_of_deliveries_are_bounded(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aged, "MOST_ROWS", 3)
    monkeypatch.setattr(aged, "MOST_BYTES", 1_000)
    for days, size in [*((50 - n, 10) for n in range(7)), (40, 5_000), (39, 600), (38, 600)]:
        insert(connection, Delivery("usual", "started", days, 0, size))
    totals: list[Removed] = [Removed()]
    asyncio.run(pruning.prune(settings, dry_run=False, progress=totals.append))
    steps = [after.deliveries - before.deliveries for before, after in itertools.pairwise(totals)]
    assert [step for step in steps if step] == [3, 3, 1, 1, 1, 1]


def test_ended_backfills_go(settings: Settings, connection: Connection) -> None:
    keep_days(connection)
    kept: set[str] = set()
    for tenant, made, ended, goes in [
        ("short", 400, 4, True),
        ("short", 400, 2, False),
        ("short", 400, None, False),
        ("usual", 400, 31, True),
        ("usual", 400, 29, False),
        ("long", 400, 31, False),
        ("unknown", 31, 31, True),
    ]:
        backfill_id = sort_id(made)
        connection.execute(
            "INSERT INTO graphwright.backfills (tenant, backfill_id, trigger_id, graph_id, name,"
            " config, from_at, to_at, next_at, max_running, total, author, ended_at) VALUES"
            " (%s, %s, %s, %s, 'nightly', '{}', now(), now(), now(), 1, 0, 'me',"
            " now() - %s * interval '1 day')",
            (tenant, backfill_id, new_id(), new_id(), ended),
        )
        if not goes:
            kept.add(backfill_id)
    assert prune(settings, dry_run=True) == Removed(backfills=3)
    assert prune(settings) == Removed(backfills=3)
    rows = connection.execute("SELECT backfill_id::text FROM graphwright.backfills")
    assert {row["backfill_id"] for row in rows} == kept


def test_a_worker_removes_old_deliveries(settings: Settings, connection: Connection) -> None:
    insert(connection, Delivery("usual", "started", 31, 0, 1))
    young = insert(connection, Delivery("usual", "started", 29, 0, 1))

    async def work() -> None:
        pruner = asyncio.create_task(Pruner(settings).run())
        try:
            async with asyncio.timeout(60):
                while stored(connection) != {young}:
                    assert not pruner.done(), pruner.result()
                    await asyncio.sleep(0.01)
        finally:
            pruner.cancel()
            with suppress(asyncio.CancelledError):
                await pruner

    asyncio.run(work())


ADD_KEYS = """
INSERT INTO graphwright.delivery_keys (tenant, trigger_id, key, delivery_id, expires_at)
SELECT 'acme', %s, n, gen_random_uuid(), now() + (n - 2) * interval '1 hour'
FROM generate_series(0, 5) n
"""


def test_keys_go_at_their_own_end(settings: Settings, connection: Connection) -> None:
    """Not with their delivery: the sender may still repeat the call."""
    connection.execute(ADD_KEYS, (new_id(),))
    assert prune(settings.model_copy(update={"retention_days": 0})) == Removed(delivery_keys=3)
    rows = connection.execute("SELECT key FROM graphwright.delivery_keys ORDER BY key")
    assert [row["key"] for row in rows] == ["3", "4", "5"]


def test_a_key_that_is_just_taken_again_stays(settings: Settings, connection: Connection) -> None:
    trigger_id = new_id()
    connection.execute(ADD_KEYS, (trigger_id,))
    with connect(settings.database_url) as receiver, receiver.transaction():
        receiver.execute(
            "UPDATE graphwright.delivery_keys SET expires_at = now() + interval '1 hour'"
            " WHERE tenant = 'acme' AND trigger_id = %s AND key = '0'",
            (trigger_id,),
        )
        assert prune(settings) == Removed(delivery_keys=2), "it waits for nobody"
    assert prune(settings) == Removed()
    rows = connection.execute("SELECT key FROM graphwright.delivery_keys ORDER BY key")
    assert [row["key"] for row in rows] == ["0", "3", "4", "5"]


MANY = """
INSERT INTO graphwright.deliveries (tenant, delivery_id, trigger_id, graph_id, received_at, headers,
    query, body, verdict, decided_at)
SELECT 'tenant-' || t, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') ||
        lpad(to_hex(t * 1000 + n), 20, '0'))::uuid,
    gen_random_uuid(), gen_random_uuid(), at, '{}', '{}', 'x',
    CASE WHEN n %% 100 = 0 THEN 'refused' ELSE 'started' END, at
FROM generate_series(1, 20) t, generate_series(1, 500) n,
    LATERAL (SELECT now() - (CASE WHEN n <= 5 THEN 40 ELSE 1 END) * interval '1 day' AS at) made
"""
MANY_KEYS = """
INSERT INTO graphwright.delivery_keys (tenant, trigger_id, key, delivery_id, expires_at)
SELECT 'tenant-' || n %% 20, gen_random_uuid(), n, gen_random_uuid(),
    now() + (CASE WHEN n <= 30 THEN -1 ELSE 1 END) * interval '1 day'
FROM generate_series(1, 10000) n
"""


def rows_read(plan: dict[str, Any]) -> float:
    """Rows that the scans of a plan have fetched, whether they were of use or not."""
    own = 0.0
    if "Relation Name" in plan and "Scan" in plan["Node Type"]:
        unused = plan.get("Rows Removed by Filter", 0) + plan.get(
            "Rows Removed by Index Recheck", 0
        )
        own = (plan["Actual Rows"] + unused) * plan["Actual Loops"]
    return own + sum(rows_read(each) for each in plan.get("Plans", ()))


def test_a_batch_reads_only_what_it_removes(connection: Connection) -> None:
    connection.execute(MANY, ())
    connection.execute(MANY_KEYS, ())
    connection.execute("VACUUM ANALYZE graphwright.deliveries, graphwright.delivery_keys")

    def read(statement: str, values: dict[str, Any]) -> float:
        explain: Any = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
        with connection.transaction(force_rollback=True):
            connection.execute(BY_INDEX)
            row = connection.execute(explain, values).fetchone()
        assert row is not None
        return rows_read(row["QUERY PLAN"][0]["Plan"])

    found = connection.execute(
        "SELECT tenant, delivery_id::text FROM graphwright.deliveries"
        " WHERE received_at < now() - interval '30 days' ORDER BY tenant, delivery_id"
    ).fetchall()
    tenants = sorted({str(row["tenant"]) for row in found})
    assert (len(found), len(tenants)) == (100, 20)
    spans: dict[str, Any] = {
        "tenants": tenants,
        "oldest": [sort_id(41)] * 20,
        "bounds": [sort_id(30)] * 20,
        "cutoffs": [datetime.now(UTC) - timedelta(days=30)] * 20,
        "limit": 1_000,
    }
    going = {
        "tenants": [row["tenant"] for row in found],
        "ids": [row["delivery_id"] for row in found],
    }
    assert read(aged_statements.OLD_DELIVERIES, spans) == 100
    assert read(aged_statements.OLD_DELIVERIES, {**spans, "limit": 7}) <= 7 * 20
    assert read(aged_statements.DELETE_DELIVERIES, going) == 100
    # Of a refused call or a key, once to find it and once to delete it.
    assert read(aged_statements.DELETE_REFUSED, {"days": 0.5, "limit": 1_000}) == 2 * 100
    assert read(aged_statements.DELETE_DELIVERY_KEYS, {"limit": 1_000}) == 2 * 30
