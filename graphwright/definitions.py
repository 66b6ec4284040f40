"""What Dagster's code server loads: one repository, with the workspace window and our sensors."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from dagster import (
    ScheduleDefinition,
    SensorDefinition,
    repository,  # pyright: ignore[reportUnknownVariableType]
)

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.naming import REPOSITORY
from dynamic_jobs.window import WindowRepository
from foundation.database import connect
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graphwright.dispatch import Instigators, Lane, Lanes, open_lanes
from schedules.timer_schedule import dispatch_timers, timer_schedule
from sensors.definitions import notify_sensor, webhook_sensor

_MOST_SECONDS: Final = 30.0

Choose: TypeAlias = Callable[[Lanes], Sequence[Lane]]


@repository(name=REPOSITORY)
def graphwright() -> Any:  # a RepositoryData, which the decorator takes but does not declare
    """Every graph that is in use, as a job; sensors and schedules of each shard."""
    settings = Settings()
    runtime = NodeRuntime(settings, Limits(), Catalogue.from_packages(node_types))
    compiler = Compiler(runtime)
    shards = [Instigators.of_shard(settings, shard) for shard in range(settings.shards)]

    def dispatch(shard: int, chosen: Choose) -> Callable[[], int]:
        return lambda: asyncio.run(_drain(runtime, compiler, shard, chosen))

    def dispatch_timers_of_all() -> int:
        return sum(dispatch(number, lambda lanes: lanes.timers)() for number in range(len(shards)))

    job = dispatch_timers(dispatch_timers_of_all)
    sensors: list[SensorDefinition] = []
    schedules: list[ScheduleDefinition] = []
    for number, shard in enumerate(shards):
        sensors += [
            webhook_sensor(shard.webhooks, dispatch(number, lambda lanes: lanes.webhooks)),
            notify_sensor(shard.notices, dispatch(number, lambda lanes: lanes.notices)),
        ]
        timers = dispatch(number, lambda lanes: lanes.timers)
        schedules.append(timer_schedule(shard.timers.name, job, timers))
    return WindowRepository(
        lambda: connect(settings.database_url), compiler, settings.window_size, sensors, schedules
    )


async def _drain(runtime: NodeRuntime, compiler: Compiler, shard: int, chosen: Choose) -> int:
    """Do what there is to do in these lanes, for at most as long as Dagster waits; how much."""
    done, ends_at = 0, time.monotonic() + _MOST_SECONDS
    async with open_lanes(runtime, compiler, [shard]) as (lanes,):
        for lane in chosen(lanes):
            while time.monotonic() < ends_at and (dispatched := await lane.dispatch()):
                done += dispatched
    return done
