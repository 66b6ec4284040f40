"""Ticks of our sensors and schedules are removed by Dagster's daemon, as ``dagster.yaml`` says."""

import time

import pytest
from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorType, TickStatus

from dynamic_jobs.ticks import Instigator, Ticks
from foundation.database import Connection, async_connect
from foundation.ids import RunId, new_id
from tests.dynamic_jobs.conftest import Bench
from tests.dynamic_jobs.retention.conftest import DAY

KINDS = [InstigatorType.SENSOR, InstigatorType.SCHEDULE]


@pytest.mark.parametrize("kind", KINDS)
def test_ticks_of_every_status_are_kept_equally_long(bench: Bench, kind: InstigatorType) -> None:
    with DagsterInstance.get() as instance:
        days = instance.get_tick_retention_settings(kind)
    assert days == dict.fromkeys(TickStatus, 30)


@pytest.mark.parametrize("kind", KINDS)
def test_the_daemon_removes_ticks_that_we_wrote(
    bench: Bench, connection: Connection, kind: InstigatorType
) -> None:
    instigator = Instigator.of("some", kind, bench.settings.code_server)
    bench.with_pool(lambda _: _record(bench.settings.database_url, instigator))
    with DagsterInstance.get() as instance:
        (days,) = set(instance.get_tick_retention_settings(kind).values())
        before = time.time() - days * DAY
        instance.purge_ticks(instigator.origin_id, instigator.selector_id, before, list(TickStatus))
        kept = instance.get_ticks(instigator.origin_id, instigator.selector_id)
    assert [(tick.status, tick.timestamp > before) for tick in kept] == [
        (TickStatus.SKIPPED, True),
        (TickStatus.SUCCESS, True),
    ]


async def _record(database_url: str, instigator: Instigator) -> None:
    """A tick with a run and one without, of today and of long ago."""
    async with await async_connect(database_url) as connection:
        for days in (31, 0.5):
            for run_ids in ([RunId(new_id())], list[RunId]()):
                at = time.time() - days * DAY
                await Ticks(instigator).record(connection, at, at, run_ids, others=1)
