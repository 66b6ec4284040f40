"""Retention beside the dispatcher: a delivery that is being decided keeps its verdict."""

import asyncio
from typing import Any

import pytest

from dynamic_jobs.retention import pruning
from dynamic_jobs.retention.removed import Removed
from foundation.ids import DeliveryId
from sensors.statements import DECIDE
from tests.sensors.conftest import TENANT, Site

pytestmark = pytest.mark.anyio

VERY_OLD = "00000000-0000-7000-8000-0000000000%02x"


async def prune(site: Site) -> Removed:
    return await pruning.prune(site.settings, dry_run=False, progress=lambda _: None)


async def old_deliveries(site: Site, count: int) -> list[DeliveryId]:
    """Deliveries that have waited for longer than deliveries are kept."""
    hook = await site.publish()
    ids = [DeliveryId(VERY_OLD % n) for n in range(count)]
    for delivery_id in ids:
        await site.deliver(hook, delivery_id=delivery_id)
    return ids


async def test_a_delivery_that_is_just_decided_stays(site: Site) -> None:
    (delivery_id,) = await old_deliveries(site, 1)
    decided: dict[str, Any] = {
        "tenants": [TENANT],
        "delivery_ids": [delivery_id],
        "verdicts": ["filtered"],
        "reasons": [None],
        "run_ids": [None],
    }
    async with site.pool.connection() as dispatcher, dispatcher.transaction():
        await dispatcher.execute(DECIDE, decided)
        assert await prune(site) == Removed(), "it waits for nobody"
    assert (await site.delivery(delivery_id))["verdict"] == "filtered"
    assert await prune(site) == Removed(), "its days begin with the verdict"


async def test_removing_while_deliveries_are_dispatched(site: Site) -> None:
    ids = await old_deliveries(site, 40)
    gone = ids[:20]
    async with site.pool.connection() as connection:
        await connection.execute(
            "DELETE FROM graphwright.delivery_queue WHERE delivery_id = ANY(%s)", (gone,)
        )
        await connection.execute(
            "UPDATE graphwright.deliveries SET verdict = 'filtered',"
            " decided_at = now() - interval '1 year' WHERE delivery_id = ANY(%s)",
            (gone,),
        )
    dispatched = asyncio.gather(*(site.dispatcher().dispatch() for _ in range(3)))
    assert await prune(site) == Removed(deliveries=20)
    assert sum(await dispatched) == 20
    rows = await site.rows(
        "SELECT verdict, run_id IS NOT NULL AS has_run FROM graphwright.deliveries"
    )
    assert rows == [{"verdict": "started", "has_run": True}] * 20
    assert len(await site.rows("SELECT FROM graphwright.runs")) == 20
