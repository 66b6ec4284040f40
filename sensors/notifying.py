"""Ends of runs start other graphs: what the notify sensor does, as graphs' ``notify`` says.

A batch is one transaction. In it runs are made, their notices say so, and the sensor's tick is
written.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
from psycopg.rows import DictRow

from dynamic_jobs.creating.making import INTERNAL, is_passing
from dynamic_jobs.creating.many import ManyRuns, Outcome, Wanted
from dynamic_jobs.creating.refusals import NotYet, TakesLong
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.dispatching import Transactions
from dynamic_jobs.ticks import Instigator
from foundation.database import AsyncConnection, AsyncPool
from foundation.ids import GraphId, RunId, TenantId
from foundation.text import storable
from graph_defs.expressions import Evaluator, NotQuick
from graph_defs.json_values import JsonObject
from sensors.notice_params import GraphNotice, Rejected, params_of
from sensors.notice_statements import CLAIM, DECIDE, GRAPHS
from sensors.notices import Entries, Entry, Notice

_log = logging.getLogger(__name__)

_BATCH: Final = 64
_QUICK_BYTES: Final = 64 * 2**10
_COSTLY_BYTES: Final = 2**20
"""Of params and outputs together: what a batch reads of a run, and what is read of one alone."""
_AGAIN_SECONDS: Final = 10.0
"""After this, what a quota or the like kept from becoming a run is tried again."""
_MAX_REASON: Final = 2_000


@dataclass(slots=True)
class _Batch:
    """What is decided about the notices of one transaction."""

    lane: Literal["graph", "costly"]
    asked: list[tuple[GraphNotice, Entry]] = field(default_factory=list[tuple[GraphNotice, Entry]])
    wanted: list[tuple[Notice, Wanted]] = field(default_factory=list[tuple[Notice, Wanted]])
    verdicts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    started: list[RunId] = field(default_factory=list[RunId])
    rejected: int = 0

    def start(self, notice: Notice, run_id: RunId) -> None:
        self.started.append(run_id)
        self._decide(notice, status="delivered", started=run_id)

    def reject(self, notice: Notice, reason: str) -> None:
        self.rejected += 1
        self._decide(notice, status="rejected", reason=storable(reason, _MAX_REASON))

    def postpone(self, notice: Notice, reason: str) -> None:
        self._decide(notice, reason=storable(reason, _MAX_REASON), delay_seconds=_AGAIN_SECONDS)

    def set_apart(self, notice: Notice) -> None:
        """Let it be decided where nobody waits for it."""
        self._decide(notice, lane="costly", attempts=0)

    def _decide(self, notice: Notice, **values: object) -> None:
        self.verdicts.append(
            {
                "tenant": notice.tenant,
                "run_id": notice.run_id,
                "entry": notice.entry,
                "status": "pending",
                "lane": self.lane,
                "attempts": 1,
                "delay_seconds": 0.0,
                **values,
            }
        )


class NoticeDispatcher:
    """Starts the graphs that notices of one shard are for; the ``costly`` ones, or all others."""

    def __init__(
        self,
        pool: AsyncPool,
        runs: ManyRuns,
        evaluator: Evaluator,
        instigator: Instigator,
        *,
        costly: bool = False,
    ) -> None:
        self._transactions = Transactions(pool, runs, instigator, quickly=not costly)
        self._evaluator = evaluator
        self._instigator = instigator
        self._entries = Entries(evaluator)
        self._costly = costly

    async def dispatch(self) -> int:
        """Decide on up to 64 notices, or on a costly one; how many they were.

        None while the sensor is switched off. Raises psycopg.OperationalError and PoolTimeout where
        the database is away; then nothing has happened.
        """
        async with self._transactions.begin(time.time()) as transaction:
            if transaction is None:
                return 0
            connection = transaction.connection
            rows = await self._claim(connection)
            if not rows:
                return 0
            batch = _Batch("costly" if self._costly else "graph")
            for row in rows:
                await self._ask(connection, batch, row)
            graphs = await _graphs(connection, batch)
            for asked, entry in batch.asked:
                await self._want(batch, asked, entry, graphs)
            outcomes = await transaction.make([wanted for _, wanted in batch.wanted])
            for (notice, _), outcome in zip(batch.wanted, outcomes, strict=True):
                _sort(batch, notice, outcome)
            await _write(connection, batch)
            await transaction.record(
                batch.started,
                others=batch.rejected,
                reason="rejected, as the notices of the runs say that have ended",
            )
        return len(rows)

    async def _claim(self, connection: AsyncConnection) -> list[DictRow]:
        values = {
            "lane": "costly" if self._costly else "graph",
            "slices": self._instigator.slices,
            "limit": 1 if self._costly else _BATCH,
            "most_bytes": _COSTLY_BYTES if self._costly else _QUICK_BYTES,
        }
        return await (await connection.execute(CLAIM, values, prepare=True)).fetchall()

    async def _ask(self, connection: AsyncConnection, batch: _Batch, row: DictRow) -> None:
        notice = Notice.of(row)
        try:
            asked = GraphNotice.of(notice, row)
        except Rejected as error:
            batch.reject(notice, error.message)
        else:
            entry = await self._entries.get(connection, notice.tenant, asked.run, notice.entry)
            batch.asked.append((asked, entry))

    async def _want(
        self,
        batch: _Batch,
        asked: GraphNotice,
        entry: Entry,
        graphs: Mapping[tuple[TenantId, str], GraphId],
    ) -> None:
        notice, name = asked.notice, entry.notify.graph or ""
        try:
            graph_id = graphs.get((notice.tenant, name))
            if graph_id is None:
                raise Rejected(f"there is no graph {name}")
            if self._costly:
                params = await asyncio.to_thread(
                    params_of, asked, entry, self._evaluator, quickly=False
                )
            else:
                params = params_of(asked, entry, self._evaluator, quickly=True)
        except NotQuick:
            batch.set_apart(notice)
        except Rejected as error:
            batch.reject(notice, error.message)
        except Exception:  # it must not keep the others waiting for ever
            _log.exception("notice %s cannot be dispatched", notice.id)
            batch.reject(notice, INTERNAL)
        else:
            batch.wanted.append((notice, self._wanted(asked, graph_id, params)))

    def _wanted(self, asked: GraphNotice, graph_id: GraphId, params: JsonObject) -> Wanted:
        trigger = Trigger(
            params,
            asked.cause,
            author=f"notify:{asked.run.graph}/{asked.notice.entry}",
            tags=self._instigator.tags,
            run_id=RunId(asked.notice.id),
        )
        return Wanted(asked.notice.tenant, graph_id, trigger)


async def _graphs(
    connection: AsyncConnection, batch: _Batch
) -> Mapping[tuple[TenantId, str], GraphId]:
    """The graphs that are to be started, by their names."""
    names = {(asked.notice.tenant, entry.notify.graph) for asked, entry in batch.asked}
    values = {
        "tenants": [tenant for tenant, _ in names],
        "names": [name for _, name in names],
    }
    rows = await (await connection.execute(GRAPHS, values, prepare=True)).fetchall()
    return {(row["tenant"], row["name"]): row["graph_id"] for row in rows}


def _sort(batch: _Batch, notice: Notice, outcome: Outcome) -> None:
    if isinstance(outcome, str):
        batch.start(notice, outcome)
    elif isinstance(outcome, TakesLong):
        batch.set_apart(notice)
    elif isinstance(outcome, NotYet):
        return  # it stays as it is, for the next batch
    elif is_passing(outcome):
        batch.postpone(notice, outcome.message)  # the run has ended, so it is not lost for that
    else:
        batch.reject(notice, str(outcome))


async def _write(connection: AsyncConnection, batch: _Batch) -> None:
    values = {"verdicts": orjson.dumps(batch.verdicts).decode()}
    await connection.execute(DECIDE, values, prepare=True)
