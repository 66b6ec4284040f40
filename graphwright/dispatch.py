"""Everything that starts runs by itself, put together: for the dispatcher's process, and for the
sensors and schedules that Dagster's daemon evaluates.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dagster._core.scheduler.instigation import InstigatorType

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.many import ManyRuns
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.queueing.waking import COSTLY_DELIVERIES, DELIVERIES, NOTICES, TIMERS
from dynamic_jobs.storage import GraphwrightStorage
from dynamic_jobs.ticks import Instigator
from foundation.database import async_pool
from foundation.secret_store import SecretStore, master_keys
from foundation.settings import Settings
from foundation.tenant_pool import TenantPool, tenant_sessions
from schedules.backfilling import Backfilling
from schedules.dispatching import TimerDispatcher
from schedules.timer_schedule import TIMER_SCHEDULE
from sensors.calling import NoticeCaller
from sensors.deciding import Decider
from sensors.definitions import NOTIFY_SENSOR, WEBHOOK_SENSOR
from sensors.dispatching import DeliveryDispatcher
from sensors.notifying import NoticeDispatcher

_WORKING: Final = 12
"""Connections for the lanes' transactions."""
_LOOKING: Final = 4
"""Connections on which those look graphs up who are in a transaction."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A kind of work that waits for no other."""

    name: str
    dispatch: Callable[[], Awaitable[int]]
    """Does some of what there is to do, and says how much; 0 where there was nothing."""
    wakes_on: str = ""
    """The notification on :data:`DISPATCH_CHANNEL` that says that there is something to do."""
    next_at: Callable[[], Awaitable[datetime | None]] | None = None
    """When there will be something to do, where that is known before."""
    poll_seconds: float = 3.0
    """After this one looks, where nobody has told of anything."""


@dataclass(frozen=True, slots=True)
class Instigators:
    """Our sensors and schedules of one shard."""

    webhooks: Instigator
    notices: Instigator
    timers: Instigator

    @classmethod
    def of_shard(cls, settings: Settings, shard: int) -> "Instigators":
        def named(name: str, kind: InstigatorType) -> Instigator:
            return Instigator.of(name, kind, settings.code_server, shard, settings.shards)

        return cls(
            webhooks=named(WEBHOOK_SENSOR, InstigatorType.SENSOR),
            notices=named(NOTIFY_SENSOR, InstigatorType.SENSOR),
            timers=named(TIMER_SCHEDULE, InstigatorType.SCHEDULE),
        )


@dataclass(frozen=True, slots=True)
class Lanes:
    """What is to be done for one shard; for the first one also what is of no shard."""

    webhooks: Sequence[Lane]
    notices: Sequence[Lane]
    timers: Sequence[Lane]

    @property
    def all(self) -> list[Lane]:
        """Every lane."""
        return [*self.webhooks, *self.notices, *self.timers]


@asynccontextmanager
async def open_lanes(
    runtime: NodeRuntime, compiler: Compiler, shards: Iterable[int]
) -> AsyncGenerator[list[Lanes]]:
    """The lanes of these shards, with pools of connections of their own."""
    settings, evaluator = runtime.settings, runtime.evaluator
    async with AsyncExitStack() as stack:
        pools = [async_pool(settings.database_url, size=size) for size in (_WORKING, _LOOKING)]
        for each in pools:
            await each.open(wait=False)
            stack.push_async_callback(each.close)
        pool, looking = pools
        storage = GraphwrightStorage(
            settings.database_url, settings.redis_url, should_autocreate_tables=False
        )
        stack.push_async_callback(asyncio.to_thread, storage.event_log_storage.dispose)
        keys = master_keys(settings)
        stack.callback(keys.close)
        revealing = tenant_sessions(settings.database_url, size=_LOOKING)
        await revealing.open(wait=False)
        stack.push_async_callback(revealing.close)
        secrets = SecretStore(TenantPool(revealing), keys)
        runs = ManyRuns(looking, storage, compiler, runtime)
        stack.push_async_callback(runs.close)

        async def lanes(shard: int) -> Lanes:
            instigators = Instigators.of_shard(settings, shard)
            webhooks = (pool, runs, Decider(evaluator), instigators.webhooks)
            notices = (pool, runs, evaluator, instigators.notices)
            timers = (pool, runs, evaluator, instigators.timers)
            # Two, since many timers are due at once: one computes while the other stores.
            one, other = TimerDispatcher(*timers), TimerDispatcher(*timers)
            behind = TimerDispatcher(*timers, lane="behind")
            costly = TimerDispatcher(*timers, lane="costly")
            caller = await stack.enter_async_context(
                NoticeCaller(pool, secrets, evaluator, instigators.notices, settings)
            )
            backfilling = Backfilling(pool, runs, evaluator, storage)
            backfills = Lane(
                "backfills", backfilling.step, next_at=backfilling.next_at, poll_seconds=1.0
            )
            return Lanes(
                webhooks=[
                    Lane("webhooks", DeliveryDispatcher(*webhooks).dispatch, DELIVERIES),
                    Lane(
                        "costly webhooks",
                        DeliveryDispatcher(*webhooks, costly=True).dispatch,
                        COSTLY_DELIVERIES,
                    ),
                ],
                notices=[
                    Lane("notices", NoticeDispatcher(*notices).dispatch, NOTICES),
                    Lane("costly notices", NoticeDispatcher(*notices, costly=True).dispatch),
                    Lane("notice calls", caller.dispatch, NOTICES),
                ],
                timers=[
                    Lane("timers", one.dispatch, TIMERS, next_at=one.next_fire_at),
                    Lane("more timers", other.dispatch, TIMERS, next_at=other.next_fire_at),
                    Lane("timers behind", behind.dispatch, next_at=behind.next_fire_at),
                    Lane("costly timers", costly.dispatch, TIMERS, next_at=costly.next_fire_at),
                    *([backfills] if shard == 0 else []),
                ],
            )

        yield [await lanes(shard) for shard in shards]
