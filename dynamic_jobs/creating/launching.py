"""Accepting triggers: from a graph and an input to a durable, queued run.

A process remembers which version of a graph it saw published. The statement that makes the run also
checks that it still is, so that a trigger of a known graph is one statement in all, and reads
neither graph nor document.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.creating import traced
from dynamic_jobs.creating.binding import bind
from dynamic_jobs.creating.concurrency import too_many
from dynamic_jobs.creating.idempotency import digest, used_by
from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.creating.new_run import Refusal, Slot
from dynamic_jobs.creating.news import News
from dynamic_jobs.creating.readying import KEPT, Readying
from dynamic_jobs.creating.refusals import refusal
from dynamic_jobs.creating.run_batches import RunBatches
from dynamic_jobs.creating.trigger import Started, Trigger
from dynamic_jobs.creating.whole_batches import Asked, WholeBatches
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import AsyncPool, connect
from foundation.errors import Conflict, Invalid, NotFound, TooLarge
from foundation.ids import RunId, TenantId
from foundation.recent import Recent
from foundation.tenant_pool import TenantPool
from graph_defs.json_values import JsonObject
from graph_defs.store import GraphStore
from graph_defs.versions import GraphVersion

_log = logging.getLogger(__name__)


class RunCreator:
    """Creates runs. One per event loop; it shares its process's compiler and Dagster storage."""

    def __init__(
        self,
        pool: AsyncPool,
        tenants: TenantPool,
        storage: GraphwrightStorage,
        compiler: Compiler,
        runtime: NodeRuntime,
    ) -> None:
        """``pool`` is for making runs of all tenants in one transaction."""
        self._pool = pool
        self._tenants = tenants
        self._storage = storage
        self._graphs = GraphStore(tenants)
        self._news = News(storage.publisher)
        hours = runtime.settings.idempotency_hours
        self._batches = RunBatches(pool, hours)
        self._slot_batches = RunBatches(pool, hours, take_slots=True)
        self._limits = runtime.limits
        self._tracing = runtime.tracing
        self._evaluator = runtime.evaluator
        self._versions = Readying(
            storage, compiler, runtime.settings.code_server, runtime.evaluator
        )
        self._published = Recent[tuple[TenantId, str], Launchable](KEPT)
        """By id or name of a graph, the version that was published when last seen."""
        self._whole = WholeBatches(
            pool, tenants, self._graphs, self._versions, self._published, runtime
        )

    async def start(self, tenant: TenantId, graph: str, trigger: Trigger) -> Started:
        """Queue a run of the published version of the graph of this id or name.

        When this returns, the run is durable.

        Raises:
            NotFound: there is no such graph.
            Invalid, TooLarge: ``params`` do not fit the graph's schema; the faults' pointers are
                below ``/params``.
            QuotaExceeded: the tenant has as many runs as it may have.
            ConcurrencyConflict: the graph refuses runs while others are under way.
            KeyReused: the Idempotency-Key was sent with something else before.
            InDoubt: the connection to the database broke, and the run may be there or not.
        """
        remembered = self._published.get((tenant, graph))
        if remembered is not None:
            try:
                started = await self._create(remembered, trigger, if_published=True)
            except (Invalid, TooLarge):
                started = None  # perhaps the version that is published by now takes them
            if started is not None:
                return started
        version = await self._graphs.published(tenant, graph)
        launchable = await self._versions.ready(version)
        self._published.keep((tenant, graph), launchable)
        return await self._create_any(launchable, trigger)

    async def start_all(self, tenant: TenantId, asked: Sequence[Asked]) -> list[Started]:
        """Queue all of these runs, or none of them; else as :meth:`start`.

        Faults of all come in one Invalid, with pointers below ``/runs/<place>``.
        """
        batch = await self._whole.start(tenant, asked)
        self._news.tell([tenant])
        for launchable, slot in batch.slots:
            await self._make_room(launchable, tenant, slot)
        return batch.started

    async def create(
        self,
        version: GraphVersion,
        params: JsonObject,
        trigger: JsonObject,
        author: str,
        *,
        priority: int = 0,
        not_before: datetime | None = None,
        live: bool = True,
    ) -> RunId:
        """Queue a run of this version, published or not; else as :meth:`start`."""
        launchable = await self._versions.ready(version)
        wanted = Trigger(params, trigger, author, priority, not_before, live)
        return (await self._create_any(launchable, wanted)).run_id

    async def repeat(self, version: GraphVersion, trigger: Trigger) -> Started:
        """Queue a run that repeats ``trigger.parent``, a run of this version; else as
        :meth:`start`."""
        launchable = await self._versions.ready(version)
        parent = trigger.parent
        if parent is not None and parent.steps is not None:
            plan = await self._versions.partial_plan(version, parent.steps)
            trigger = replace(trigger, parent=replace(parent, plan_snapshot_id=plan))
        return await self._create_any(launchable, trigger)

    async def close(self) -> None:
        """Wait until what was accepted is written."""
        await self._batches.close()
        await self._slot_batches.close()
        await self._news.close()

    async def _create_any(self, launchable: Launchable, trigger: Trigger) -> Started:
        started = await self._create(launchable, trigger, if_published=False)
        assert started is not None
        return started

    async def _create(
        self, launchable: Launchable, trigger: Trigger, *, if_published: bool
    ) -> Started | None:
        """None where the version is not the published one any more."""
        tenant = launchable.version.tenant
        try:
            new = bind(launchable, trigger, self._limits, self._evaluator)
            new, span = traced.begin(self._tracing, new)
            row = launchable.row(new, if_published=if_published)
            batches = self._batches if new.slot is None else self._slot_batches
            refused = await batches.create(new.run_id, row, tenant)
        except (Invalid, TooLarge):
            if (started := await self._replayed(launchable, trigger)) is not None:
                return started  # it was accepted before, by another version maybe
            raise
        match refused:
            case None:
                self._news.tell([tenant])
                traced.end(self._tracing, span, new.run_id, launchable)
                await self._make_room(launchable, tenant, new.slot)
                return Started(new.run_id)
            case "unpublished":
                return None
            case _:
                return await self._refused(launchable, trigger, refused, if_published=if_published)

    async def _refused(
        self, launchable: Launchable, trigger: Trigger, refused: Refusal, *, if_published: bool
    ) -> Started | None:
        started = await self._replayed(launchable, trigger)
        if started is not None:
            return started
        if refused == "key_used":  # it has expired by now
            return await self._create(launchable, trigger, if_published=if_published)
        raise refusal(refused, launchable.version)

    async def _replayed(self, launchable: Launchable, trigger: Trigger) -> Started | None:
        """The run that an earlier trigger with the same key has started, if there was one."""
        idempotency = digest(launchable.version.graph_id, trigger)
        if idempotency is None:
            return None
        tenant = launchable.version.tenant
        async with self._tenants.connection(tenant) as connection:
            run_id = await used_by(connection, tenant, idempotency)
        return None if run_id is None else Started(run_id, replayed=True)

    async def _make_room(self, launchable: Launchable, tenant: TenantId, slot: Slot | None) -> None:
        """Cancel the runs in whose stead this one was started, if its graph wants that."""
        rule = launchable.concurrency
        if slot is None or rule is None or rule.rule.on_conflict != "cancel_running":
            return
        async with self._pool.connection() as connection:
            for run_id in await too_many(connection, tenant, slot):
                await asyncio.to_thread(self._cancel, tenant, run_id)

    def _cancel(self, tenant: TenantId, run_id: RunId) -> None:
        with connect(self._storage.postgres_url) as connection:
            try:
                cancel(connection, self._storage.writer, tenant, run_id)
            except (Conflict, NotFound):
                _log.info("run %s has ended by itself", run_id)
