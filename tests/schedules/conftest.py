"""What the tests of timers share: a published timer, a clock of one's own, and a dispatcher."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import pytest
from dagster._core.scheduler.instigation import InstigatorType
from psycopg.types.json import Json

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.many import ManyRuns
from dynamic_jobs.ticks import Instigator
from foundation.database import AsyncPool
from foundation.tenant_pool import TenantPool
from graph_defs.recurrence import recurrence_of
from graph_defs.trigger_store import StoredTrigger, TriggerStore
from graph_defs.triggers import TimerTrigger
from schedules.backfilling import Backfilling
from schedules.backfills import BackfillStore
from schedules.batch import TimerLane
from schedules.dispatching import TimerDispatcher
from schedules.timer_schedule import TIMER_SCHEDULE
from tests.dynamic_jobs.conftest import TENANT, Bench, bench, graph, value

__all__ = ["TENANT", "Bench", "Timers", "at", "bench", "timers"]

T = TypeVar("T")

SCHEDULE = Instigator.of(TIMER_SCHEDULE, InstigatorType.SCHEDULE, ("127.0.0.1", 4000))


def at(text: str) -> datetime:
    """An instant, in UTC where it has no offset."""
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@dataclass
class Timers:
    """Timers over real PostgreSQL and real Dagster, with a clock that the test sets."""

    bench: Bench

    def publish(self, trigger: dict[str, Any], due_at: datetime, **more: Any) -> StoredTrigger:
        """A graph with this timer, which is due then."""
        more.setdefault("params", {"type": "object"})
        document = graph(
            {"a": value(1)}, triggers={"nightly": {"type": "timer", **trigger}}, **more
        )
        version = self.bench.publish(document)

        async def stored(pool: AsyncPool) -> StoredTrigger:
            (trigger,) = await TriggerStore(TenantPool(pool)).of_graph(TENANT, version.graph_id)
            return trigger

        published = self.bench.with_pool(stored)
        self.set(published, due_at, due_at)
        return published

    def set(self, trigger: StoredTrigger, due_at: datetime, fire_at: datetime) -> None:
        self.bench.connection.execute(
            "UPDATE graphwright.timers SET due_at = %s, fire_at = %s WHERE trigger_id = %s",
            (due_at, fire_at, trigger.trigger_id),
        )

    def set_next(self, trigger: StoredTrigger, after: datetime) -> None:
        """Let it be due for the first time after this."""
        recurrence = recurrence_of(TimerTrigger.model_validate(trigger.config))
        due_at = recurrence.next(after)
        assert due_at is not None
        self.set(trigger, due_at, recurrence.fire_at(UUID(trigger.trigger_id), due_at))

    def configure(self, trigger: StoredTrigger, **config: Any) -> None:
        """Change a trigger behind the store's back, so that its due time stays."""
        self.bench.connection.execute(
            "UPDATE graphwright.triggers SET config = %s WHERE trigger_id = %s",
            (Json({**trigger.config, **config}), trigger.trigger_id),
        )

    def row(self, trigger: StoredTrigger) -> dict[str, Any] | None:
        return self.bench.connection.execute(
            "SELECT due_at, fire_at, lane FROM graphwright.timers WHERE trigger_id = %s",
            (trigger.trigger_id,),
        ).fetchone()

    def trigger(self, trigger: StoredTrigger) -> StoredTrigger:
        async def get(pool: AsyncPool) -> StoredTrigger:
            return await TriggerStore(TenantPool(pool)).get(TENANT, trigger.trigger_id)

        return self.bench.with_pool(get)

    def with_dispatcher(
        self, work: Callable[[TimerDispatcher], Awaitable[T]], *, lane: TimerLane = "quick"
    ) -> T:
        async def run(pool: AsyncPool) -> T:
            return await work(
                TimerDispatcher(
                    pool, self.many(pool), self.bench.runtime.evaluator, SCHEDULE, lane=lane
                )
            )

        return self.bench.with_pool(run)

    def dispatch(self, now: datetime, *, lane: TimerLane = "quick") -> int:
        """One batch of a lane, at that time."""
        return self.with_dispatcher(lambda dispatcher: dispatcher.dispatch(now), lane=lane)

    def drain(self, now: datetime) -> None:
        """All that is due at that time and not costly."""
        while self.dispatch(now) + self.dispatch(now, lane="behind"):
            pass

    def with_backfills(self, work: Callable[[BackfillStore, Backfilling], Awaitable[T]]) -> T:
        async def run(pool: AsyncPool) -> T:
            backfilling = Backfilling(
                pool, self.many(pool), self.bench.runtime.evaluator, self.bench.storage
            )
            return await work(BackfillStore(TenantPool(pool)), backfilling)

        return self.bench.with_pool(run)

    def many(self, pool: AsyncPool) -> ManyRuns:
        return ManyRuns(pool, self.bench.storage, self.compiler, self.bench.runtime)

    @property
    def compiler(self) -> Compiler:
        return Compiler(self.bench.runtime)

    def fired(self) -> list[str]:
        """The due times that have runs, in order; with duplicates, if there were any."""
        rows = self.bench.connection.execute(
            "SELECT trigger ->> 'due_at' AS due_at FROM graphwright.runs"
            " WHERE trigger ->> 'type' = 'timer' ORDER BY 1"
        )
        return [row["due_at"] for row in rows]

    def runs(self) -> list[dict[str, Any]]:
        rows = self.bench.connection.execute("SELECT * FROM graphwright.runs ORDER BY sort_id")
        return rows.fetchall()


@pytest.fixture
def timers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Timers:
    """No batch of theirs leaves anything for want of time."""
    for limit in (
        "dynamic_jobs.creating.many._QUICK_SECONDS",
        "dynamic_jobs.creating.readying._QUICK_SECONDS",
        "schedules.backfilling._SECONDS",
    ):
        monkeypatch.setattr(limit, math.inf)
    return Timers(bench)
