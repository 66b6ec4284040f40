"""Runs that are made inside a transaction of the caller's: all of a batch, or none.

For triggers that wait in the database themselves. That a trigger is used up and that its run is
queued is then one commit, so that neither a crash nor a second dispatcher loses a run or doubles
one.
"""

import asyncio
import logging
import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, LiteralString, TypeAlias

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.creating import traced
from dynamic_jobs.creating.binding import bind
from dynamic_jobs.creating.concurrency import too_many
from dynamic_jobs.creating.launchable import Launchable
from dynamic_jobs.creating.new_run import Refusal, Slot
from dynamic_jobs.creating.news import News
from dynamic_jobs.creating.readying import KEPT, Readying
from dynamic_jobs.creating.refusals import NotYet, TakesLong, refusal
from dynamic_jobs.creating.run_batches import insert
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.queueing.admission import admit_async, lock
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import AsyncConnection, AsyncPool, connect
from foundation.errors import Conflict, Fault, GraphwrightError, Invalid, NotFound, TooLarge
from foundation.ids import GraphId, RunId, TenantId
from foundation.recent import Recent
from foundation.telemetry.tracing import Span
from graph_defs.expressions import NotQuick
from graph_defs.stored_versions import published_versions

_log = logging.getLogger(__name__)

_MAX_RUNS: Final = 256
_MAX_BYTES: Final = 4 * 2**20
_QUICK_SECONDS: Final = 0.5
_QUICK_BYTES: Final = 256 * 2**10
_ANY_BYTES: Final = 2**31 - 1
_ROUNDS: Final = 3
"""A graph that is published anew each time that one looks is left for later after so many."""

LIMITED: Final[LiteralString] = """
SELECT tenant FROM graphwright.tenant_policies
WHERE tenant = ANY(%(tenants)s) AND max_running IS NOT NULL
"""

_Graph: TypeAlias = tuple[TenantId, GraphId]

Outcome: TypeAlias = RunId | GraphwrightError
"""The run, or why there is none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that is asked for."""

    tenant: TenantId
    graph_id: GraphId
    trigger: Trigger


@dataclass(frozen=True, slots=True)
class _Displacing:
    """A run in whose stead others of its slot are to be cancelled."""

    tenant: TenantId
    slot: Slot


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a batch."""

    outcomes: Sequence[Outcome]
    """One for each that was wanted, in their order."""
    tenants: frozenset[TenantId]
    """Of the runs that were made."""
    displacing: Sequence[_Displacing]

    @property
    def run_ids(self) -> list[RunId]:
        """The runs that were made."""
        return [each for each in self.outcomes if isinstance(each, str)]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A run whose row can be inserted."""

    place: int
    wanted: Wanted
    launchable: Launchable
    run_id: RunId
    slot: Slot | None
    row: bytes
    span: Span | None


class ManyRuns:
    """Makes runs of the published versions of graphs. One per event loop."""

    def __init__(
        self, pool: AsyncPool, storage: GraphwrightStorage, compiler: Compiler, runtime: NodeRuntime
    ) -> None:
        """``pool`` is for looking graphs up while a caller is in its transaction: if that has a
        connection of the same pool, all of them may be taken by those who wait for another."""
        self._pool = pool
        self._storage = storage
        self._limits = runtime.limits
        self._tracing = runtime.tracing
        self._evaluator = runtime.evaluator
        self._versions = Readying(
            storage, compiler, runtime.settings.code_server, runtime.evaluator
        )
        self._published = Recent[_Graph, Launchable](KEPT)
        self._news = News(storage.publisher)
        self._crowded: dict[tuple[TenantId, str], _Displacing] = {}
        self._settling: asyncio.Task[None] | None = None

    async def create_many(
        self, connection: AsyncConnection, wanted: Sequence[Wanted], *, quickly: bool
    ) -> Made:
        """Queue these runs in the transaction that ``connection`` is in, by a few statements.

        An outcome is an error where the run cannot be made: NotFound (the graph is gone), Invalid
        and TooLarge (its params do not fit), QuotaExceeded, ConcurrencyConflict, and
        NodeTypeUnavailable. Call :meth:`settle` after the commit.

        ``quickly`` is for a transaction with many tenants' runs: what takes long is TakesLong, and
        what would make the batch as a whole take more than a second or two is NotYet. Otherwise a
        run may take its time, off the event loop.

        Raises psycopg.Error where the database refuses; nothing of the batch may be kept then.
        """
        outcomes: dict[int, Outcome] = {}
        displacing: list[_Displacing] = []
        missing = set(range(len(wanted)))
        for number in range(_ROUNDS):
            # A version that is remembered may be an old one: what it refuses is looked at again.
            known, remembered = await self._launchables(
                {_graph_of(wanted[place]) for place in missing}, anew=number > 0, quickly=quickly
            )
            if quickly:
                ready, refused = self._bind(wanted, missing, known, quickly=True)
            else:
                ready, refused = await asyncio.to_thread(
                    self._bind, wanted, missing, known, quickly=False
                )
            for place, answer in await self._insert(connection, ready):
                if answer is None:
                    made = ready[place]
                    outcomes[place] = made.run_id
                    traced.end(self._tracing, made.span, made.run_id, made.launchable)
                    displacing += _displaced(ready[place])
                elif answer != "unpublished":
                    outcomes[place] = refusal(answer, ready[place].launchable.version)
            outcomes |= {
                place: error
                for place, error in refused.items()
                if _graph_of(wanted[place]) not in remembered
                or isinstance(error, TakesLong | NotYet)
            }
            missing -= outcomes.keys()
            if not missing:
                break
        for place in missing:
            outcomes[place] = NotYet("the graph was published again and again meanwhile")
        told = [outcomes[place] for place in range(len(wanted))]
        tenants = {
            each.tenant
            for each, outcome in zip(wanted, told, strict=True)
            if isinstance(outcome, str)
        }
        return Made(told, frozenset(tenants), displacing)

    def settle(self, made: Made) -> None:
        """After the commit: tell streams of these runs, and begin to cancel those in whose stead
        some were started."""
        self._news.tell(made.tenants)
        self._crowded |= {(each.tenant, each.slot.name): each for each in made.displacing}
        if self._crowded and self._settling is None:
            self._settling = asyncio.create_task(self._settle())

    async def close(self) -> None:
        """Wait until everything is settled."""
        if self._settling is not None:
            await self._settling
        await self._news.close()

    async def _settle(self) -> None:
        try:
            while self._crowded:
                _, each = self._crowded.popitem()
                try:
                    async with self._pool.connection() as connection:
                        surplus = await too_many(connection, each.tenant, each.slot)
                    for run_id in surplus:
                        await asyncio.to_thread(self._cancel, each.tenant, run_id)
                except Exception:
                    _log.exception("runs of %s are not cancelled for newer ones", each.tenant)
        finally:
            self._settling = None

    async def _launchables(
        self, graphs: set[_Graph], *, anew: bool, quickly: bool
    ) -> tuple[dict[_Graph, Launchable | GraphwrightError], set[_Graph]]:
        """The published versions, and of which graphs they are only remembered."""
        known: dict[_Graph, Launchable | GraphwrightError] = {}
        if not anew:
            for graph in graphs:
                if (launchable := self._published.get(graph)) is not None:
                    known[graph] = launchable
        remembered = set(known)
        if unknown := sorted(graphs - remembered):
            most_bytes = _QUICK_BYTES if quickly else _ANY_BYTES
            # Not the caller's connection, which waits in a transaction: this may take a while.
            async with self._pool.connection() as connection:
                versions, large = await published_versions(connection, unknown, most_bytes)
            known |= dict.fromkeys(large, TakesLong("the graph's document is large"))
            ready = await self._versions.ready_many(versions, quickly=quickly)
            for version in versions:
                graph = version.tenant, version.graph_id
                known[graph] = launchable = ready[version.graph_version_id]
                if isinstance(launchable, Launchable):
                    self._published.keep(graph, launchable)
        return known, remembered

    def _bind(
        self,
        wanted: Sequence[Wanted],
        places: set[int],
        known: dict[_Graph, Launchable | GraphwrightError],
        *,
        quickly: bool,
    ) -> tuple[dict[int, _Ready], dict[int, GraphwrightError]]:
        until = time.monotonic() + (_QUICK_SECONDS if quickly else math.inf)
        ready: dict[int, _Ready] = {}
        refused: dict[int, GraphwrightError] = {}
        for place in sorted(places):
            asked = wanted[place]
            launchable = known.get(_graph_of(asked)) or NotFound(
                "there is no such graph any more", graph=asked.graph_id
            )
            if isinstance(launchable, GraphwrightError):
                refused[place] = launchable
                continue
            if ready and time.monotonic() > until:
                refused[place] = NotYet("others of the batch took long")
                continue
            try:
                new = bind(
                    launchable, asked.trigger, self._limits, self._evaluator, quickly=quickly
                )
                new, span = traced.begin(self._tracing, new)
                row = launchable.row(new, if_published=True)
            except NotQuick:
                refused[place] = TakesLong("its params or its concurrency key take long")
            except (Invalid, TooLarge) as error:
                refused[place] = error
            except TypeError as error:
                fault = Fault("/params", "bad_value", f"They cannot be stored: {error}.")
                refused[place] = Invalid("The params have a fault.", [fault])
            else:
                ready[place] = _Ready(place, asked, launchable, new.run_id, new.slot, row, span)
        return ready, refused

    async def _insert(
        self, connection: AsyncConnection, ready: dict[int, _Ready]
    ) -> list[tuple[int, Refusal | None]]:
        answers: list[tuple[int, Refusal | None]] = []
        if not ready:
            return answers
        # All locks at once, in their order, and before the rows: whether there is a place is true
        # until the runs have it.
        tenants = {each.wanted.tenant for each in ready.values()}
        slotted = {each.wanted.tenant for each in ready.values() if each.slot is not None}
        locked = slotted | await _limited(connection, tenants - slotted)
        if locked:
            await lock(connection, locked)
        for chunk in _chunks(list(ready.values())):
            rows = await insert(connection, [each.row for each in chunk])
            answers += [(each.place, rows[each.run_id]["refused"]) for each in chunk]
        if locked:
            await admit_async(connection, locked)
        return answers

    def _cancel(self, tenant: TenantId, run_id: RunId) -> None:
        with connect(self._storage.postgres_url) as connection:
            try:
                cancel(connection, self._storage.writer, tenant, run_id)
            except (Conflict, NotFound):
                _log.info("run %s has ended by itself", run_id)


async def _limited(connection: AsyncConnection, tenants: Collection[TenantId]) -> set[TenantId]:
    """Those of the tenants whose running runs are limited."""
    rows = await (await connection.execute(LIMITED, {"tenants": list(tenants)})).fetchall()
    return {TenantId(row["tenant"]) for row in rows}


def _graph_of(wanted: Wanted) -> _Graph:
    return wanted.tenant, wanted.graph_id


def _displaced(made: _Ready) -> Iterator[_Displacing]:
    rule = made.launchable.concurrency
    if made.slot is not None and rule is not None and rule.rule.on_conflict == "cancel_running":
        yield _Displacing(made.wanted.tenant, made.slot)


def _chunks(ready: Sequence[_Ready]) -> Iterator[list[_Ready]]:
    chunk: list[_Ready] = []
    room = _MAX_BYTES
    for each in ready:
        if chunk and (len(chunk) == _MAX_RUNS or len(each.row) > room):
            yield chunk
            chunk, room = [], _MAX_BYTES
        chunk.append(each)
        room -= len(each.row)
    if chunk:
        yield chunk
