"""Runs that one request asks for: all of them are made, by one statement, or none."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from dynamic_jobs.creating import traced
from dynamic_jobs.creating.binding import bind
from dynamic_jobs.creating.idempotency import digest, many_used_by
from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.creating.new_run import Idempotency, NewRun, Slot
from dynamic_jobs.creating.readying import Readying
from dynamic_jobs.creating.refusals import NotYet, refusal
from dynamic_jobs.creating.run_batches import InDoubt, insert
from dynamic_jobs.creating.trigger import Started, Trigger
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.queueing.admission import admit_async, lock
from foundation.database import AsyncConnection, AsyncPool
from foundation.errors import Conflict, Fault, GraphwrightError, Invalid, NotFound, TooLarge
from foundation.ids import RunId, TenantId
from foundation.recent import Recent
from foundation.telemetry.tracing import Span
from foundation.tenant_pool import TenantPool
from graph_defs.store import GraphStore
from graph_defs.versions import GraphVersion

_ROUNDS: Final = 5
"""So often is a batch tried whose graphs are published anew, or whose keys are used, meanwhile."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A run of the graph of this id or name."""

    graph: str
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of a batch."""

    started: list[Started]
    """One for each that was asked for, in their order."""
    slots: list[tuple[Launchable, Slot]]
    """Of the runs that were made, each slot once."""


@dataclass(frozen=True, slots=True)
class _Ready:
    launchable: Launchable
    new: NewRun
    row: bytes
    span: Span | None


class _AgainError(Exception):
    """Somebody was quicker: nothing was made, and the batch is to be looked at again."""


class WholeBatches:
    """Starts runs of one tenant together. One per event loop."""

    def __init__(
        self,
        pool: AsyncPool,
        tenants: TenantPool,
        graphs: GraphStore,
        versions: Readying,
        published: Recent[tuple[TenantId, str], Launchable],
        runtime: NodeRuntime,
    ) -> None:
        """``published``: by id or name of a graph, the version that was published when last
        seen."""
        self._pool = pool
        self._tenants = tenants
        self._graphs = graphs
        self._versions = versions
        self._published = published
        self._limits = runtime.limits
        self._evaluator = runtime.evaluator
        self._tracing = runtime.tracing
        self._key_hours = runtime.settings.idempotency_hours

    async def start(self, tenant: TenantId, asked: Sequence[Asked]) -> Batch:
        """Queue these runs, unless one of them cannot be; raises what ``RunCreator.start_all``
        does. Their idempotency keys are different."""
        # Where nothing is remembered, nothing can be old.
        anew = all(self._published.get((tenant, each.graph)) is None for each in asked)
        for _ in range(_ROUNDS):
            try:
                return await self._start(tenant, asked, anew=anew)
            except (Invalid, _AgainError, psycopg.errors.DeadlockDetected) as error:
                # What an old version refuses, the one that is published by now may take.
                if isinstance(error, Invalid) and anew:
                    raise
                anew = True
        raise NotYet("graphs of the batch were published again and again meanwhile", hint="Retry.")

    async def _start(self, tenant: TenantId, asked: Sequence[Asked], *, anew: bool) -> Batch:
        known = await self._launchables(tenant, {each.graph for each in asked}, anew=anew)
        replayed = await self._replayed(tenant, asked, known)
        ready = await asyncio.to_thread(self._bind, asked, known, set(replayed))
        if ready:
            await self._create(tenant, list(ready.values()))
        slots: dict[str, tuple[Launchable, Slot]] = {}
        for each in ready.values():
            traced.end(self._tracing, each.span, each.new.run_id, each.launchable)
            if each.new.slot is not None:
                slots[each.new.slot.name] = each.launchable, each.new.slot
        started = [
            Started(replayed[place], replayed=True)
            if place in replayed
            else Started(ready[place].new.run_id)
            for place in range(len(asked))
        ]
        return Batch(started, list(slots.values()))

    async def _launchables(
        self, tenant: TenantId, graphs: set[str], *, anew: bool
    ) -> dict[str, Launchable | GraphwrightError]:
        """The published version of each graph, or why there is none."""
        known: dict[str, Launchable | GraphwrightError] = {}
        versions: dict[str, GraphVersion] = {}
        for graph in sorted(graphs):
            remembered = None if anew else self._published.get((tenant, graph))
            if remembered is not None:
                known[graph] = remembered
                continue
            try:
                versions[graph] = await self._graphs.published(tenant, graph)
            except (NotFound, Conflict) as error:
                known[graph] = error
        ready = await self._versions.ready_many(list(versions.values()), quickly=False)
        for graph, version in versions.items():
            launchable = ready[version.graph_version_id]
            if not isinstance(launchable, Launchable):
                raise launchable
            self._published.keep((tenant, graph), launchable)
            known[graph] = launchable
        return known

    async def _replayed(
        self,
        tenant: TenantId,
        asked: Sequence[Asked],
        known: Mapping[str, Launchable | GraphwrightError],
    ) -> dict[int, RunId]:
        """By place, the runs that were started with the same keys before."""
        keys: dict[int, Idempotency] = {}
        for place, each in enumerate(asked):
            launchable = known[each.graph]
            if isinstance(launchable, Launchable):
                idempotency = digest(launchable.version.graph_id, each.trigger)
                if idempotency is not None:
                    keys[place] = idempotency
        if not keys:
            return {}
        async with self._tenants.connection(tenant) as connection:
            used = await many_used_by(connection, tenant, keys.values())
        return {place: used[each.key] for place, each in keys.items() if each.key in used}

    def _bind(
        self,
        asked: Sequence[Asked],
        known: Mapping[str, Launchable | GraphwrightError],
        without: set[int],
    ) -> dict[int, _Ready]:
        ready: dict[int, _Ready] = {}
        faults: list[Fault] = []
        for place, each in enumerate(asked):
            launchable = known[each.graph]
            if place in without:
                continue
            if isinstance(launchable, GraphwrightError):
                faults += _faults(place, "/graph", launchable)
                continue
            try:
                new = bind(launchable, each.trigger, self._limits, self._evaluator)
                new, span = traced.begin(self._tracing, new)
                ready[place] = _Ready(launchable, new, launchable.row(new, if_published=True), span)
            except (Invalid, TooLarge) as error:
                faults += _faults(place, "/params", error)
            except TypeError as error:
                message = f"They cannot be stored: {error}."
                faults.append(Fault(f"/runs/{place}/params", "bad_value", message))
        if faults:
            raise Invalid("The batch has faults, and none of its runs was started.", faults)
        return ready

    async def _create(self, tenant: TenantId, ready: Sequence[_Ready]) -> None:
        async with self._pool.connection() as connection:
            try:
                await self._insert(connection, tenant, ready)
            except psycopg.Error as error:
                if not connection.closed:
                    raise
                raise _in_doubt() from error

    async def _insert(
        self, connection: AsyncConnection, tenant: TenantId, ready: Sequence[_Ready]
    ) -> None:
        async with connection.transaction():
            if any(each.new.slot is not None for each in ready):
                await lock(connection, [tenant])
            created = await insert(connection, [each.row for each in ready], self._key_hours)
            for each in ready:
                refused = created[each.new.run_id]["refused"]
                if refused in ("unpublished", "key_used"):
                    raise _AgainError
                if refused is not None:
                    raise refusal(refused, each.launchable.version)
            if any(row["limited"] for row in created.values()) or any(
                each.new.slot is not None for each in ready
            ):
                await admit_async(connection, [tenant])


def _faults(place: int, where: str, error: GraphwrightError) -> list[Fault]:
    if isinstance(error, Invalid):
        return [
            Fault(f"/runs/{place}{fault.pointer}", fault.code, fault.message, fault.hint)
            for fault in error.faults
        ]
    return [Fault(f"/runs/{place}{where}", error.code, error.message, error.hint)]


def _in_doubt() -> InDoubt:
    return InDoubt(
        "the database was lost while the runs were being stored: all of them may be there, or none",
        hint="Send them again with the same Idempotency-Key.",
    )
