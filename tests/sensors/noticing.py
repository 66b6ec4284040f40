"""Runs that end and set something off, without workers: a test ends them itself."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from dagster import DagsterEventType
from dagster._core.scheduler.instigation import InstigatorType

from dynamic_jobs import naming
from dynamic_jobs.controlling.records import run_record
from dynamic_jobs.creating.many import Wanted
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.storage import GraphwrightStorage
from dynamic_jobs.storage.lease import Lease
from dynamic_jobs.ticks import Instigator
from foundation.database import connect
from foundation.ids import GraphId, RunId, TenantId
from foundation.secret_store import SecretStore, master_keys
from foundation.tenant_pool import TenantPool
from graph_defs.fingerprint import Canonical
from graph_defs.publishing import Publication
from graph_defs.store import GraphStore
from sensors.calling import NoticeCaller
from sensors.definitions import NOTIFY_SENSOR
from sensors.notifying import NoticeDispatcher
from tests.sensors.conftest import TENANT, Site

ENDS = {
    "succeeded": DagsterEventType.PIPELINE_SUCCESS,
    "failed": DagsterEventType.PIPELINE_FAILURE,
    "cancelled": DagsterEventType.PIPELINE_CANCELED,
}
ERROR = {"code": "expression_failed", "message": "no key", "hint": "Look.", "node": "a"}
REPAIR: Mapping[str, Any] = {"on": ["failed"], "graph": "repair"}


@dataclass(frozen=True)
class Noticing:
    """A site whose graphs have ``notify``."""

    site: Site
    storage: GraphwrightStorage
    instigator: Instigator

    def dispatcher(self, *, costly: bool = False) -> NoticeDispatcher:
        evaluator = self.site.runtime.evaluator
        return NoticeDispatcher(
            self.site.pool, self.site.runs, evaluator, self.instigator, costly=costly
        )

    def caller(self, **settings: Any) -> NoticeCaller:
        """One that may call loopback."""
        changed = self.site.settings.model_copy(update={"http_private": True, **settings})
        return NoticeCaller(
            self.site.pool,
            self.secrets(),
            self.site.runtime.evaluator,
            self.instigator,
            changed,
        )

    def secrets(self) -> SecretStore:
        return SecretStore(TenantPool(self.site.pool), master_keys(self.site.settings))

    async def publish(
        self,
        notify: Mapping[str, Any] | None = None,
        *,
        name: str = "tested",
        tenant: TenantId = TENANT,
        **fields: Any,
    ) -> GraphId:
        document: dict[str, Any] = {
            "apiVersion": "graphwright/v1",
            "kind": "Graph",
            "metadata": {"name": name},
            "nodes": {"a": {"type": "data.transform", "with": {"value": 1}}},
            **({"notify": notify} if notify else {}),
            **fields,
        }
        store = GraphStore(TenantPool(self.site.pool))
        await store.ensure_tenant(tenant)
        graph, _ = await store.apply(
            tenant, Publication(Canonical.of(document), {"data.transform": 1}, "ann")
        )
        return GraphId(graph.graph_id)

    async def start(
        self,
        graph_id: GraphId,
        params: Mapping[str, Any] | None = None,
        *,
        tenant: TenantId = TENANT,
        cause: Mapping[str, Any] | None = None,
    ) -> RunId:
        trigger = Trigger({**(params or {})}, {**(cause or {"type": "rest"})}, author="ann")
        async with self.site.pool.connection() as connection, connection.transaction():
            wanted = [Wanted(tenant, graph_id, trigger)]
            made = await self.site.runs.create_many(connection, wanted, quickly=True)
        (run_id,) = made.run_ids
        return run_id

    async def end(
        self,
        run_id: RunId,
        status: str,
        *,
        tenant: TenantId = TENANT,
        outputs: object = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        """End the run as its worker would."""
        text = None if outputs is None else orjson.dumps(outputs).decode()
        lease = Lease(tenant, run_id, 0, text, error)
        writer = self.storage.writer
        writer.hold(lease)
        writer.append(run_record(run_id, naming.job_name("tested", GraphId(run_id)), ENDS[status]))
        await asyncio.to_thread(writer.flush, run_id)
        writer.release(lease)

    async def ended(
        self,
        notify: Mapping[str, Any],
        status: str = "failed",
        *,
        tenant: TenantId = TENANT,
        **fields: Any,
    ) -> RunId:
        """A run, that has ended so, of a graph of its own."""
        graph_id = await self.publish(notify, tenant=tenant, **fields)
        run_id = await self.start(graph_id, tenant=tenant)
        await self.end(run_id, status, tenant=tenant, error=ERROR if status == "failed" else None)
        return run_id

    async def notices(self, run_id: RunId | None = None) -> list[dict[str, Any]]:
        return await self.site.rows(
            "SELECT run_id::text, name, lane, status, attempts, started::text, reason, ended_at,"
            " extract(epoch FROM next_at - now())::float AS in_seconds"
            " FROM graphwright.notices WHERE run_id = COALESCE(%s, run_id) ORDER BY run_id, name",
            run_id,
        )

    async def notice(self, run_id: RunId | None = None) -> dict[str, Any]:
        (notice,) = await self.notices(run_id)
        return notice

    async def execute(self, statement: str, *values: object) -> None:
        asked: Any = statement
        async with self.site.pool.connection() as connection:
            await connection.execute(asked, values or None)

    async def make_due(self) -> None:
        """Let the time come at which notices are tried again."""
        await self.execute("UPDATE graphwright.notices SET next_at = now()")

    async def ticks(self) -> list[dict[str, Any]]:
        rows = await self.site.rows(
            "SELECT tick_body, status FROM job_ticks WHERE selector_id = %s ORDER BY id",
            self.instigator.selector_id,
        )
        return [{**orjson.loads(row["tick_body"]), "status": row["status"]} for row in rows]

    def cancel(self, run_id: RunId) -> None:
        from dynamic_jobs.controlling.cancelling import cancel

        with connect(self.site.settings.database_url) as connection:
            cancel(connection, self.storage.writer, TENANT, run_id)


@asynccontextmanager
async def noticing(site: Site) -> AsyncGenerator[Noticing]:
    """On this site."""
    settings = site.settings
    storage = GraphwrightStorage(
        settings.database_url, settings.redis_url, should_autocreate_tables=False
    )
    try:
        instigator = Instigator.of(NOTIFY_SENSOR, InstigatorType.SENSOR, settings.code_server)
        yield Noticing(site, storage, instigator)
    finally:
        storage.event_log_storage.dispose()
