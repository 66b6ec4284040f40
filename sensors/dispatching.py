"""Deliveries become runs: what the webhook sensor does, for our dispatcher and Dagster's daemon.

A batch is one transaction. In it deliveries leave the queue, their runs are made, their verdicts
and the sensor's tick are written.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from dynamic_jobs.creating.making import INTERNAL, is_passing
from dynamic_jobs.creating.many import ManyRuns, Outcome, Wanted
from dynamic_jobs.creating.refusals import NotYet, TakesLong
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.dispatching import Transactions
from dynamic_jobs.ticks import Instigator
from foundation.database import AsyncConnection, AsyncPool
from foundation.errors import QuotaExceeded
from foundation.ids import DeliveryId, RunId, TenantId
from foundation.telemetry.tracing import sane
from foundation.text import storable
from graph_defs.expressions import NotQuick
from graph_defs.json_values import JsonObject
from sensors.deciding import Decider, Delivery, Rejected
from sensors.statements import CLAIM, DECIDE, PUT_BACK, PUT_OFF

_log = logging.getLogger(__name__)

_BATCH: Final = 256
_AGAIN_SECONDS: Final = 10.0
"""After this, what a quota or the like kept from becoming a run is tried again."""
_OFF_SECONDS: Final = 60.0
"""So long, and up to twice that, wait all others of a tenant that is over its quota."""
_MOST_SECONDS: Final = 0.5
"""A batch decides on no further delivery after so long: others are due too."""
_MAX_REASON: Final = 2_000
_NAMESPACE: Final = uuid.UUID("5f0c8a3e-9d5b-4a53-8f6e-0c3d6b1f7a11")

Verdict = Literal["started", "filtered", "rejected"]


def run_of(delivery_id: DeliveryId) -> RunId:
    """The id of the run that a delivery starts: always the same, so that there cannot be two."""
    return RunId(str(uuid.uuid5(_NAMESPACE, delivery_id)))


@dataclass(slots=True)
class _Batch:
    """What is decided about the deliveries of one transaction."""

    verdicts: list[tuple[Delivery, Verdict, str | None, RunId | None]] = field(
        default_factory=list[tuple[Delivery, Verdict, str | None, RunId | None]]
    )
    costly: list[Delivery] = field(default_factory=list[Delivery])
    later: list[Delivery] = field(default_factory=list[Delivery])
    again: list[Delivery] = field(default_factory=list[Delivery])
    over_quota: set[TenantId] = field(default_factory=set[TenantId])
    wanted: list[tuple[Delivery, Wanted]] = field(default_factory=list[tuple[Delivery, Wanted]])

    def decide(
        self, delivery: Delivery, verdict: Verdict, reason: str = "", run_id: RunId | None = None
    ) -> None:
        self.verdicts.append((delivery, verdict, storable(reason, _MAX_REASON) or None, run_id))

    def started(self) -> list[RunId]:
        return [run_id for _, _, _, run_id in self.verdicts if run_id is not None]


class DeliveryDispatcher:
    """Dispatches the deliveries of one shard; those with ``costly`` expressions, or all others."""

    def __init__(
        self,
        pool: AsyncPool,
        runs: ManyRuns,
        decider: Decider,
        instigator: Instigator,
        *,
        costly: bool = False,
    ) -> None:
        self._transactions = Transactions(pool, runs, instigator, quickly=not costly)
        self._decider = decider
        self._instigator = instigator
        self._costly = costly

    async def dispatch(self) -> int:
        """Take up to 256 deliveries off the queue, or a costly one; how many they were.

        None while the sensor is switched off. Raises psycopg.OperationalError and PoolTimeout where
        the database is away; then nothing has happened.
        """
        async with self._transactions.begin(time.time()) as transaction:
            if transaction is None:
                return 0
            deliveries = await self._claim(transaction.connection)
            if not deliveries:
                return 0
            batch = _Batch()
            ends_at = time.monotonic() + _MOST_SECONDS
            for delivery in deliveries:
                if time.monotonic() < ends_at:
                    await self._decide(delivery, batch)
                else:
                    batch.again.append(delivery)
            outcomes = await transaction.make([wanted for _, wanted in batch.wanted])
            for (delivery, _), outcome in zip(batch.wanted, outcomes, strict=True):
                _sort(batch, delivery, outcome)
            await _write(transaction.connection, batch)
            started = batch.started()
            await transaction.record(
                started,
                others=len(batch.verdicts) - len(started),
                reason="filtered or rejected, as the inbox says",
            )
        return len(deliveries)

    async def _claim(self, connection: AsyncConnection) -> list[Delivery]:
        values = {
            "costly": self._costly,
            "slices": self._instigator.slices,
            "limit": 1 if self._costly else _BATCH,
        }
        cursor = await connection.execute(CLAIM, values, prepare=True)
        return [Delivery.of(row) for row in await cursor.fetchall()]

    async def _decide(self, delivery: Delivery, batch: _Batch) -> None:
        try:
            if self._costly:
                params = await asyncio.to_thread(self._decider.decide, delivery, quickly=False)
            else:
                params = self._decider.decide(delivery, quickly=True)
        except NotQuick:
            batch.costly.append(delivery)
        except Rejected as error:
            batch.decide(delivery, "rejected", error.message)
        except Exception:  # it must not keep the others waiting for ever
            _log.exception("delivery %s cannot be dispatched", delivery.delivery_id)
            batch.decide(delivery, "rejected", INTERNAL)
        else:
            if params is None:
                batch.decide(delivery, "filtered")
            else:
                batch.wanted.append((delivery, self._want(delivery, params)))

    def _want(self, delivery: Delivery, params: JsonObject) -> Wanted:
        cause: JsonObject = {
            "type": "webhook",
            "name": delivery.name,
            "trigger_id": delivery.trigger_id,
            "delivery_id": delivery.delivery_id,
        }
        trigger = Trigger(
            params,
            cause,
            author=f"webhook:{delivery.name}",
            tags=self._instigator.tags,
            run_id=run_of(delivery.delivery_id),
            traceparent=sane(delivery.headers.get("traceparent")),
        )
        return Wanted(delivery.tenant, delivery.graph_id, trigger)


def _sort(batch: _Batch, delivery: Delivery, outcome: Outcome) -> None:
    if isinstance(outcome, str):
        batch.decide(delivery, "started", run_id=outcome)
    elif isinstance(outcome, TakesLong):
        batch.costly.append(delivery)
    elif isinstance(outcome, NotYet):
        batch.again.append(delivery)
    elif is_passing(outcome):
        batch.later.append(delivery)  # it was accepted, so it is not lost for that
        if isinstance(outcome, QuotaExceeded):
            batch.over_quota.add(delivery.tenant)
    else:
        batch.decide(delivery, "rejected", str(outcome))


async def _write(connection: AsyncConnection, batch: _Batch) -> None:
    if batch.verdicts:
        deliveries, verdicts, reasons, run_ids = zip(*batch.verdicts, strict=True)
        values = {
            **_ids(deliveries),
            "verdicts": list(verdicts),
            "reasons": list(reasons),
            "run_ids": list(run_ids),
        }
        await connection.execute(DECIDE, values, prepare=True)
    for deliveries, costly, delay in (
        (batch.costly, True, 0.0),
        (batch.again, False, 0.0),
        (batch.later, False, _AGAIN_SECONDS),
    ):
        if deliveries:
            values = {**_ids(deliveries), "costly": costly, "delay_seconds": delay}
            await connection.execute(PUT_BACK, values)
    if batch.over_quota:
        values = {"tenants": list(batch.over_quota), "delay_seconds": _OFF_SECONDS}
        await connection.execute(PUT_OFF, values)


def _ids(deliveries: Sequence[Delivery]) -> dict[str, object]:
    return {
        "tenants": [each.tenant for each in deliveries],
        "delivery_ids": [each.delivery_id for each in deliveries],
    }
