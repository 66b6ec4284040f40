"""The inbox as its owner sees it: listed, read, delivered again; and the notices of a run."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dynamic_jobs.queueing.waking import DISPATCH_CHANNEL
from foundation.database import async_connect
from foundation.errors import Conflict, NotFound
from foundation.ids import DeliveryId, RunId, TenantId, new_id
from foundation.tenant_pool import TenantPool
from sensors.deliveries import DeliveryStore, Verdict
from sensors.dispatching import run_of
from sensors.notice_list import NoticeStore
from tests.sensors.conftest import TENANT, Site

pytestmark = pytest.mark.anyio

OTHER = TenantId("other")
PARAMS = {"type": "object", "properties": {"n": {"type": "integer"}}}


async def set_columns(site: Site, delivery_id: str, **columns: Any) -> None:
    changes = ", ".join(f"{name} = %({name})s" for name in columns)
    statement: Any = f"UPDATE graphwright.deliveries SET {changes} WHERE delivery_id = %(id)s"
    async with site.pool.connection() as connection:
        await connection.execute(statement, {**columns, "id": delivery_id})


async def listed(site: Site, tenant: TenantId = TENANT, **filters: Any) -> list[DeliveryId]:
    page = await DeliveryStore(TenantPool(site.pool)).list(tenant, 50, **filters)
    assert page.next_cursor is None
    return [each.delivery_id for each in page.items]


async def test_deliveries_are_listed_newest_first_in_pages(site: Site) -> None:
    hook = await site.publish()
    made = [await site.deliver(hook, n) for n in range(5)]
    store = DeliveryStore(TenantPool(site.pool))
    found: list[DeliveryId] = []
    cursor: str | None = None
    sizes: list[int] = []
    while True:
        page = await store.list(TENANT, 2, cursor)
        found += [each.delivery_id for each in page.items]
        sizes.append(len(page.items))
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == made[::-1]
    assert sizes == [2, 2, 1]


async def test_deliveries_are_found_by_trigger_graph_and_verdict(site: Site) -> None:
    one, two = await site.publish(name="one"), await site.publish(name="two")
    foreign = await site.publish(name="one", tenant=OTHER)
    of_one, refused = await site.deliver(one), await site.deliver(one)
    of_two, of_other = await site.deliver(two), await site.deliver(foreign)
    await set_columns(site, refused, verdict="refused", body=None)
    assert await listed(site) == [of_two, refused, of_one]
    assert await listed(site, trigger_id=one.trigger_id) == [refused, of_one]
    assert await listed(site, graph_id=two.graph_id) == [of_two]
    assert await listed(site, verdict="refused") == [refused]
    assert await listed(site, verdict="pending", trigger_id=one.trigger_id) == [of_one]
    assert await listed(site, verdict="started") == []
    assert await listed(site, OTHER) == [of_other]
    assert await listed(site, OTHER, trigger_id=one.trigger_id) == []
    assert await listed(site, OTHER, graph_id=one.graph_id) == []


async def test_a_delivery_is_read_with_all_that_was_kept(site: Site) -> None:
    hook = await site.publish()
    delivery_id = await site.deliver(hook, b'{"n": "\xff"}', query='{"a": ["1", "2"], "b": ""}')
    store = DeliveryStore(TenantPool(site.pool))
    found = await store.get(TENANT, delivery_id)
    assert (found.trigger, found.graph) == ("hook", "tested")
    assert (found.trigger_id, found.graph_id) == (hook.trigger_id, hook.graph_id)
    assert (found.verdict, found.latency_ms, found.run_id) == ("pending", None, None)
    assert (found.body, found.size) == (b'{"n": "\xff"}', 10)
    assert found.headers == {"content-type": "application/json"}
    assert found.query == {"a": ["1", "2"], "b": ""}
    await site.dispatcher().dispatch()
    assert (await store.get(TENANT, delivery_id)).verdict == "rejected"


@pytest.mark.parametrize(("seconds", "latency"), [(0.25, 250), (0, 0), (-3, 0)])
async def test_latency_is_never_below_zero(site: Site, seconds: float, latency: float) -> None:
    """The receiver's clock and the database's may differ."""
    delivery_id = await site.deliver(await site.publish())
    at = datetime(2030, 1, 31, tzinfo=UTC)
    decided_at = at + timedelta(seconds=seconds)
    await set_columns(site, delivery_id, received_at=at, decided_at=decided_at)
    found = await DeliveryStore(TenantPool(site.pool)).get(TENANT, delivery_id)
    assert found.latency_ms == latency


async def test_a_delivery_again_is_a_delivery_and_a_run_of_its_own(site: Site) -> None:
    """Of the trigger as it is published now."""
    wants = {"params": {"n": "${{ trigger.body.n }}"}}
    hook = await site.publish({**wants, "filter": "${{ trigger.body.n < 5 }}"}, params=PARAMS)
    first = await site.deliver(hook, {"n": 7}, sender_id="abc")
    await site.dispatcher().dispatch()
    assert (await site.delivery(first))["verdict"] == "filtered"
    await site.publish(wants, params=PARAMS)
    store = DeliveryStore(TenantPool(site.pool))
    again = await store.redeliver(TENANT, first)
    assert again.delivery_id != first
    assert (again.verdict, again.redelivery_of, again.latency_ms) == ("pending", first, None)
    before = await store.get(TENANT, first)
    assert (again.body, again.headers, again.query) == (before.body, before.headers, before.query)
    more = await store.redeliver(TENANT, again.delivery_id)
    assert (more.redelivery_of, more.sender_id) == (again.delivery_id, again.sender_id)
    assert await site.dispatcher().dispatch() == 2
    for each in (again, more):
        told = await store.get(TENANT, each.delivery_id)
        assert (told.verdict, told.run_id) == ("started", run_of(each.delivery_id))
        assert told.latency_ms is not None
    runs = await site.rows("SELECT params FROM graphwright.runs")
    assert [run["params"] for run in runs] == [{"n": 7}, {"n": 7}]
    assert await store.get(TENANT, first) == before


async def test_the_dispatcher_hears_of_it_and_the_queue_has_it(site: Site) -> None:
    first = await site.deliver(await site.publish())
    await site.dispatcher().dispatch()
    async with await async_connect(site.settings.database_url) as connection:
        await connection.execute(f"LISTEN {DISPATCH_CHANNEL}")
        again = await DeliveryStore(TenantPool(site.pool)).redeliver(TENANT, first)
        heard = [each async for each in connection.notifies(timeout=30, stop_after=1)]
    assert len(heard) == 1
    queued = await site.row(
        "SELECT delivery_id::text, tenant, costly FROM graphwright.delivery_queue"
    )
    assert queued == {"delivery_id": again.delivery_id, "tenant": TENANT, "costly": False}


async def test_no_delivery_is_made_that_is_not_on_the_queue(site: Site) -> None:
    first = await site.deliver(await site.publish())
    async with site.pool.connection() as connection:
        await connection.execute(
            "ALTER TABLE graphwright.delivery_queue ADD CHECK (false) NOT VALID"
        )
    with pytest.raises(psycopg.errors.CheckViolation):
        await DeliveryStore(TenantPool(site.pool)).redeliver(TENANT, first)
    assert await listed(site) == [first]


@pytest.mark.parametrize(("verdict", "says"), [("refused", "refused"), ("started", "no such")])
async def test_what_cannot_be_delivered_again(site: Site, verdict: Verdict, says: str) -> None:
    first = await site.deliver(await site.publish())
    await site.dispatcher().dispatch()
    await set_columns(site, first, verdict=verdict)
    if verdict != "refused":
        await site.publish(triggers={"other": {"type": "webhook", "scheme": "none"}})
    with pytest.raises(Conflict, match=says):
        await DeliveryStore(TenantPool(site.pool)).redeliver(TENANT, first)
    assert await listed(site) == [first]
    assert await site.rows("SELECT FROM graphwright.delivery_queue") == []


async def test_a_delivery_is_its_tenants(site: Site) -> None:
    first = await site.deliver(await site.publish())
    store = DeliveryStore(TenantPool(site.pool))
    for tenant, delivery_id in ((OTHER, first), (TENANT, new_id()), (TENANT, "x'"), (TENANT, "")):
        with pytest.raises(NotFound):
            await store.get(tenant, delivery_id)
        with pytest.raises(NotFound):
            await store.redeliver(tenant, delivery_id)
    assert await listed(site) == [first]


async def test_the_notices_of_a_run(site: Site) -> None:
    run_id, started = RunId(new_id()), RunId(new_id())
    async with site.pool.connection() as connection:
        for tenant, name, status, reason in (
            (TENANT, "tell", "pending", "it answered 500"),
            (TENANT, "next", "delivered", None),
            (OTHER, "theirs", "pending", None),
        ):
            await connection.execute(
                "INSERT INTO graphwright.notices (tenant, run_id, name, lane, status, attempts,"
                " reason, started) VALUES (%s, %s, %s, 'url', %s, 1, %s, %s)",
                (tenant, run_id, name, status, reason, started if name == "next" else None),
            )
    store = NoticeStore(TenantPool(site.pool))
    done, waiting = await store.of_run(TENANT, run_id)
    assert (done.name, done.status, done.started, done.next_at) == (
        "next", "delivered", started, None,
    )  # fmt: skip
    assert (waiting.name, waiting.attempts, waiting.reason) == ("tell", 1, "it answered 500")
    assert waiting.next_at is not None
    assert await store.of_run(TENANT, RunId(new_id())) == []
