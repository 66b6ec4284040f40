"""Calls of the API's readers and writers, whose statements are recorded."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dynamic_jobs.reading.event_log import READ, read_events
from dynamic_jobs.reading.many_log import LABELS, read_many
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.reading.stream import NEWS
from foundation.errors import NotFound
from foundation.ids import NodeId, RunId, TenantId
from foundation.schema import Applied
from foundation.tenant_pool import TenantPool
from graph_defs.drafts import DraftStore
from graph_defs.fingerprint import Canonical
from graph_defs.publishing import Publication
from graph_defs.store import GraphStore
from graph_defs.stored_versions import published_versions
from graph_defs.trigger_store import TriggerStore
from schedules.backfills import BackfillStore
from sensors.deliveries import DeliveryStore, Verdict
from sensors.notice_list import NoticeStore
from tests.live_api.query_plans.recording import Recorded, Sent
from tests.live_api.query_plans.volume import EVENTS, TENANT

VERDICTS: tuple[Verdict | None, ...] = (None, "rejected", "started", "pending")


async def use_graphs(store: GraphStore) -> None:
    await store.ensure_tenant(TENANT)
    first = await store.list(TENANT, 20)
    await store.list(TENANT, 20, first.next_cursor)
    graph = await store.get(TENANT, first.items[0].name)
    await store.get(TENANT, graph.graph_id)
    for known in (graph.graph_id, graph.name):
        await store.published(TENANT, known)
    await store.version(TENANT, graph.graph_id)
    await store.version(TENANT, graph.graph_id, 1)
    await store.document(TENANT, graph.graph_id, 1)
    for value in (1, 2, 2):
        document: Any = {
            "metadata": {"name": "new", "labels": {"team": f"{value}"}},
            "nodes": {"a": {"value": value}},
            "triggers": {
                "hook": {"type": "webhook", "scheme": "none"},
                "timer": {"type": "timer", "every": f"{value}h"},
                "over": {"type": "timer", "every": "1h", "not_after": "2020-01-01T00:00:00Z"},
            },
        }
        new, _ = await store.apply(TENANT, Publication(Canonical.of(document), {}, "ann"))
    await store.versions(TENANT, new.graph_id, 20)
    labels = [("team", "2"), ("stage", "prod")]
    await store.list(TENANT, 20, None, labels)
    await store.list(TENANT, 20, first.next_cursor, labels)


async def use_drafts(drafts: DraftStore, store: GraphStore) -> None:
    document: Any = {"metadata": {"name": "drafted"}, "nodes": {}}
    for graph in ("drafted", "drafted", "thrown-away"):
        draft, _ = await drafts.put(TENANT, graph, Canonical.of(document), "ann", _no_check)
    await drafts.put(TENANT, draft.graph_id, Canonical.of(document), "ann", _no_check)
    await drafts.delete(TENANT, draft.graph_id, _no_check)
    draft = await drafts.get(TENANT, "drafted")
    given = Publication(Canonical.of(document), {}, "ann")
    await drafts.publish(draft, given, _no_check)
    await store.delete(TENANT, "drafted")


def _no_check(_draft: object) -> None:
    pass


async def use_triggers(pool: TenantPool) -> None:
    graph = (await GraphStore(pool).list(TENANT, 2)).items[-1]
    triggers = TriggerStore(pool)
    _, timer = await triggers.of_graph(TENANT, graph.graph_id)
    for enabled in (False, True):
        await triggers.set_enabled(TENANT, timer.trigger_id, enabled=enabled)
    backfills = BackfillStore(pool)
    now = datetime(2026, 2, 1, tzinfo=UTC)
    backfill, _ = await backfills.create(
        timer, now - timedelta(days=1), now, 1, "ann", now, idempotency_key="k"
    )
    await backfills.cancel(TENANT, backfill.backfill_id)
    page = await backfills.list(TENANT, 20)
    await backfills.list(TENANT, 20, page.next_cursor)
    deliveries = DeliveryStore(pool)
    some = await deliveries.list(TENANT, 20)
    first = some.items[0]
    for graph_id in (None, first.graph_id):
        for trigger_id in (None, first.trigger_id):
            for verdict in VERDICTS:
                for cursor in (None, some.next_cursor):
                    await deliveries.list(
                        TENANT,
                        20,
                        cursor,
                        trigger_id=trigger_id,
                        graph_id=graph_id,
                        verdict=verdict,
                    )
    assert (await deliveries.redeliver(TENANT, first.delivery_id)).redelivery_of
    assert first.run_id is None
    assert await NoticeStore(pool).of_run(TENANT, RunId(first.delivery_id))


async def use_runs(recorded: Recorded) -> RunId:
    runs, sent = RunStore(recorded.tenants, recorded.by_key), recorded.sent
    page = await runs.list(TENANT, limit=20)
    first, last = page.items[0], page.items[-1]
    for graph in (None, first.graph_id):
        for statuses in ((), ("failed",), ("failed", "succeeded")):
            for labels in ((), (("stage", "prod"), ("team", "1"))):
                asked: Any = {"graph_id": graph, "statuses": statuses, "labels": labels}
                for before in (None, last.run_id):
                    await runs.list(TENANT, **asked, before=before, limit=20)
                await runs.list(TENANT, **asked, error="timeout", limit=20)
    await runs.get(TENANT, first.run_id)
    await runs.status(TENANT, first.run_id)
    await runs.statuses(TENANT, [first.run_id, last.run_id])
    await runs.output(TENANT, first.run_id, NodeId("a"))
    with pytest.raises(NotFound):
        await runs.get(TenantId("tenant-8"), first.run_id)
    async with recorded.tenants.connection(TENANT) as connection:
        await read_events(connection, TENANT, first.run_id, EVENTS, 1_000)
        await read_many(connection, TENANT, 0, None, EVENTS, 1_000)
        await connection.execute(LABELS, (TENANT, [first.graph_id]))
    async with recorded.system.connection() as connection:
        await connection.execute(NEWS, ([TENANT], [first.run_id], [0]))
        await Applied.read(connection)
        await published_versions(connection, [(TENANT, first.graph_id)], 2**20)
    # From the beginning, too: of the volume's events only the columns that are asked for are real.
    (latest,) = (each for each in sent if each.statement == READ)
    sent.append(Sent(READ, {**latest.parameters, "after": 0}, TENANT))
    return first.run_id
