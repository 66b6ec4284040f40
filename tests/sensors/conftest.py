"""Dispatching against a real database: graphs with webhooks, and deliveries that wait."""

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from dagster._core.scheduler.instigation import InstigatorType

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.many import ManyRuns
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.storage import GraphwrightStorage
from dynamic_jobs.ticks import Instigator
from foundation.database import AsyncPool, async_pool
from foundation.ids import DeliveryId, TenantId, new_id
from foundation.settings import Limits, Settings
from foundation.tenant_pool import TenantPool
from graph_defs.catalogue import Catalogue
from graph_defs.fingerprint import Canonical
from graph_defs.publishing import Publication
from graph_defs.store import GraphStore
from graph_defs.trigger_store import StoredTrigger, TriggerStore
from sensors.deciding import Decider
from sensors.definitions import WEBHOOK_SENSOR
from sensors.dispatching import DeliveryDispatcher

TENANT = TenantId("acme")


@dataclass(frozen=True)
class Site:
    """What dispatching needs, and short ways to ask about it."""

    settings: Settings
    pool: AsyncPool
    runtime: NodeRuntime
    runs: ManyRuns
    instigator: Instigator

    def dispatcher(self, *, costly: bool = False) -> DeliveryDispatcher:
        decider = Decider(self.runtime.evaluator)
        return DeliveryDispatcher(self.pool, self.runs, decider, self.instigator, costly=costly)

    async def publish(
        self,
        trigger: Mapping[str, Any] | None = None,
        *,
        name: str = "tested",
        tenant: TenantId = TENANT,
        **fields: Any,
    ) -> StoredTrigger:
        """Publish a graph with one webhook, called ``hook``; that."""
        hook = {"type": "webhook", "scheme": "none", **(trigger or {})}
        document: dict[str, Any] = {
            "apiVersion": "graphwright/v1",
            "kind": "Graph",
            "metadata": {"name": name},
            "nodes": {"a": {"type": "data.transform", "with": {"value": 1}}},
            "triggers": {"hook": hook},
            **fields,
        }
        store = GraphStore(TenantPool(self.pool))
        graph, _ = await store.apply(
            tenant, Publication(Canonical.of(document), {"data.transform": 1}, "ann")
        )
        found = await TriggerStore(TenantPool(self.pool)).of_graph(tenant, graph.graph_id)
        return found[0]

    async def deliver(
        self, trigger: StoredTrigger, body: object = None, **columns: Any
    ) -> DeliveryId:
        """Put a delivery with these bytes, or as JSON, into the inbox, and on the queue."""
        delivery_id = DeliveryId(new_id())
        row: dict[str, Any] = {
            "tenant": trigger.tenant,
            "delivery_id": delivery_id,
            "trigger_id": trigger.trigger_id,
            "graph_id": trigger.graph_id,
            "headers": '{"content-type": "application/json"}',
            "query": "{}",
            "body": body if isinstance(body, bytes) else orjson.dumps(body),
            **columns,
        }
        async with self.pool.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO graphwright.deliveries (tenant, delivery_id, trigger_id, graph_id,"
                " received_at, headers, query, body) VALUES (%(tenant)s, %(delivery_id)s,"
                " %(trigger_id)s, %(graph_id)s, now(), %(headers)s, %(query)s, %(body)s)",
                row,
            )
            await connection.execute(
                "INSERT INTO graphwright.delivery_queue (delivery_id, tenant)"
                " VALUES (%(delivery_id)s, %(tenant)s)",
                row,
            )
        return delivery_id

    async def deliver_many(self, trigger: StoredTrigger, count: int) -> list[DeliveryId]:
        """Put so many deliveries of nothing into the inbox, and on the queue."""
        rows = await self.rows(
            "WITH new AS (INSERT INTO graphwright.deliveries (tenant, delivery_id, trigger_id,"
            " graph_id, received_at, headers, query) SELECT %s, gen_random_uuid(), %s, %s, now(),"
            " '{}', '{}' FROM generate_series(1, %s) RETURNING tenant, delivery_id)"
            " INSERT INTO graphwright.delivery_queue (delivery_id, tenant)"
            " SELECT delivery_id, tenant FROM new RETURNING delivery_id::text",
            trigger.tenant,
            trigger.trigger_id,
            trigger.graph_id,
            count,
        )
        return [DeliveryId(row["delivery_id"]) for row in rows]

    async def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        asked: Any = statement
        async with self.pool.connection() as connection:
            return await (await connection.execute(asked, values)).fetchall()

    async def row(self, statement: str, *values: object) -> dict[str, Any]:
        (row,) = await self.rows(statement, *values)
        return row

    async def delivery(self, delivery_id: DeliveryId) -> dict[str, Any]:
        return await self.row(
            "SELECT verdict, reason, run_id::text, decided_at FROM graphwright.deliveries"
            " WHERE delivery_id = %s",
            delivery_id,
        )

    async def ticks(self) -> list[dict[str, Any]]:
        """The ticks of the webhook sensor, as Dagster reads them, oldest first."""
        rows = await self.rows(
            "SELECT tick_body, status FROM job_ticks WHERE selector_id = %s ORDER BY id",
            self.instigator.selector_id,
        )
        return [{**orjson.loads(row["tick_body"]), "status": row["status"]} for row in rows]


@pytest.fixture
async def site(
    settings: Settings, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Site]:
    """One process's worth of dispatching, whose batches leave nothing for want of time."""
    for limit in (
        "sensors.dispatching._MOST_SECONDS",
        "dynamic_jobs.creating.many._QUICK_SECONDS",
        "dynamic_jobs.creating.readying._QUICK_SECONDS",
    ):
        monkeypatch.setattr(limit, math.inf)
    catalogue = Catalogue.from_packages(node_types)
    async with AsyncExitStack() as stack:
        runtime = stack.enter_context(NodeRuntime(settings, limits, catalogue))
        pool = await stack.enter_async_context(async_pool(settings.database_url))
        storage = GraphwrightStorage(
            settings.database_url, settings.redis_url, should_autocreate_tables=False
        )
        stack.callback(storage.event_log_storage.dispose)
        runs = ManyRuns(pool, storage, Compiler(runtime), runtime)
        instigator = Instigator.of(WEBHOOK_SENSOR, InstigatorType.SENSOR, settings.code_server)
        yield Site(settings, pool, runtime, runs, instigator)
