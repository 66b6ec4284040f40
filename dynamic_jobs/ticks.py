"""Sensors and schedules as Dagster keeps them: whether they are switched on, and their ticks.

Our dispatcher evaluates them by itself, the moment that there is something to do, and writes the
finished tick into Dagster's table in the transaction that makes the tick's runs. So the tick
history in the Dagster UI says what happened, whatever dies. Ticks that have begun are never
written: Dagster's daemon would take them for its own, cut off.

This module knows how Dagster names and stores ticks; the contract is tests/dynamic_jobs/
test_ticks.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, LiteralString

from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus
from dagster._core.storage.tags import SCHEDULE_NAME_TAG, SENSOR_NAME_TAG
from dagster._serdes import serialize_value

from dynamic_jobs.creating.new_run import remote_repository
from foundation.database import AsyncConnection
from foundation.ids import RunId

SLICES: Final = 64
"""Parts of the tenants, the same for ever; a shard is some of them."""

_OPEN_SECONDS: Final = 1.0
_MOST_RUNS: Final = 100

STATUS: Final[LiteralString] = "SELECT status FROM instigators WHERE selector_id = %(selector_id)s"

ADD: Final[LiteralString] = """
INSERT INTO job_ticks (job_origin_id, selector_id, status, type, timestamp, tick_body)
VALUES (%(origin_id)s, %(selector_id)s, %(status)s, %(type)s, %(timestamp)s, %(body)s)
RETURNING id
"""

AMEND: Final[LiteralString] = """
UPDATE job_ticks SET status = %(status)s, tick_body = %(body)s,
    update_timestamp = now() AT TIME ZONE 'UTC'
WHERE id = %(id)s
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Instigator:
    """One of our sensors or schedules: that of one shard, out of ``shards``."""

    kind: InstigatorType
    shard: int
    shards: int
    name: str
    origin_id: str
    selector_id: str

    @classmethod
    def of(
        cls,
        name: str,
        kind: InstigatorType,
        code_server: tuple[str, int],
        shard: int = 0,
        shards: int = 1,
    ) -> "Instigator":
        """The one called ``name``, or in a shard past the first ``name_<shard>``."""
        full = name if shard == 0 else f"{name}_{shard}"
        origin = RemoteInstigatorOrigin(
            repository_origin=remote_repository(code_server), instigator_name=full
        )
        return cls(kind, shard, shards, full, origin.get_id(), origin.get_selector().get_id())

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which Dagster knows that it has started a run."""
        sensor = self.kind == InstigatorType.SENSOR
        return {SENSOR_NAME_TAG if sensor else SCHEDULE_NAME_TAG: self.name}

    @property
    def slices(self) -> list[int]:
        """The slices of its tenants: a column of our queues."""
        return list(range(self.shard, SLICES, self.shards))

    async def is_on(self, connection: AsyncConnection) -> bool:
        """Whether it is switched on in the Dagster UI; one that nobody touched is."""
        cursor = await connection.execute(STATUS, {"selector_id": self.selector_id}, prepare=True)
        row = await cursor.fetchone()
        return row is None or row["status"] != "STOPPED"


@dataclass(frozen=True, slots=True)
class Tick:
    """A finished tick: the runs that it started, and how many others it decided on."""

    tick_id: int
    began_at: float
    run_ids: tuple[RunId, ...]
    others: int
    reason: str


class Ticks:
    """Writes the ticks of one instigator.

    Under load there are hundreds of batches a second, so one tick stands for all that happened in
    a second, up to 100 runs.
    """

    def __init__(self, instigator: Instigator) -> None:
        self._instigator = instigator
        self._last: Tick | None = None

    async def record(
        self,
        connection: AsyncConnection,
        began_at: float,
        ended_at: float,
        run_ids: Sequence[RunId],
        *,
        others: int = 0,
        reason: str = "",
    ) -> Tick:
        """Write that the evaluation from ``began_at`` to ``ended_at`` (Unix times) started these
        runs, and decided for ``reason`` that ``others`` start none.

        It is part of the caller's transaction; after the commit hand the tick to :meth:`keep`.
        """
        # Forgotten until the commit is known: after one that is in doubt, a new tick is begun.
        last, self._last = self._last, None
        if last is not None and (
            ended_at - last.began_at <= _OPEN_SECONDS
            and len(last.run_ids) + len(run_ids) <= _MOST_RUNS
        ):
            tick = replace(
                last,
                run_ids=(*last.run_ids, *run_ids),
                others=last.others + others,
                reason=reason or last.reason,
            )
            cursor = await connection.execute(AMEND, self._values(tick, ended_at), prepare=True)
            if await cursor.fetchone() is not None:
                return tick
        tick = Tick(0, began_at, tuple(run_ids), others, reason)
        cursor = await connection.execute(ADD, self._values(tick, ended_at), prepare=True)
        row = await cursor.fetchone()
        assert row is not None
        return replace(tick, tick_id=row["id"])

    def keep(self, tick: Tick) -> None:
        """The transaction of this tick has committed."""
        self._last = tick

    def _values(self, tick: Tick, ended_at: float) -> dict[str, object]:
        instigator = self._instigator
        status = TickStatus.SUCCESS if tick.run_ids else TickStatus.SKIPPED
        skipped = f"{tick.others} started no run: {tick.reason}"
        data = TickData(
            instigator_origin_id=instigator.origin_id,
            instigator_name=instigator.name,
            instigator_type=instigator.kind,
            status=status,
            timestamp=tick.began_at,
            end_timestamp=ended_at,
            run_ids=list(tick.run_ids),
            # Dagster takes a reason only where there is no run.
            skip_reason=None if tick.run_ids else skipped,
            selector_id=instigator.selector_id,
        )
        return {
            "id": tick.tick_id,
            "origin_id": instigator.origin_id,
            "selector_id": instigator.selector_id,
            "status": status.value,
            "type": instigator.kind.value,
            "timestamp": datetime.fromtimestamp(tick.began_at, UTC).replace(tzinfo=None),
            "body": serialize_value(data),
        }
