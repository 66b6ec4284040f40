"""Streams of many runs: each event once and in its run's order, whichever way transactions end."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamic_jobs.reading.events import tenant_channel_of
from dynamic_jobs.reading.stream import StreamHub
from dynamic_jobs.storage.publisher import Publisher
from foundation.database import AsyncPool, async_pool, connect
from foundation.ids import TenantId, new_id
from foundation.redis import AsyncRedis, async_redis
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.many_client import Client, Writing, databases, hub, write
from tests.dynamic_jobs.run_rows import RunRows
from tests.dynamic_jobs.stream_client import pool, redis, subscribed
from tests.services import with_database

__all__ = ["databases", "hub", "pool", "redis"]

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("many streams")]  # a server a module


async def test_all_runs_as_it_happens(hub: StreamHub, database_url: str) -> None:
    one = RunRows(database_url)
    write(one, "before")
    client = Client()
    await client.connect(hub)
    two, other = RunRows(database_url, graph="second"), RunRows(database_url, tenant=TenantId("x"))
    write(one, "a", "b")
    write(other, "of another tenant")
    write(two, "c")
    assert await client.has(3) == ["a", "b", "c"]
    assert [each.graph_id for each in client.got] == [one.graph_id, one.graph_id, two.graph_id]
    assert [each.event["run_id"] for each in client.got] == [one.run_id, one.run_id, two.run_id]
    await client.leave()


async def test_news_is_pushed(
    pool: AsyncPool, redis: AsyncRedis, database_url: str, redis_url: str
) -> None:
    tenant = TenantId(f"t-{new_id()[-12:]}")  # other test processes follow acme's runs too
    rows = RunRows(database_url, tenant=tenant)
    publisher = Publisher(redis_url)
    async with StreamHub(pool, TenantPool(pool), redis, silence_seconds=3600) as hub:
        client = Client(tenant)
        await client.connect(hub)
        await subscribed(redis, tenant_channel_of(tenant))
        write(rows, "a")
        publisher.publish([(rows.tenant, rows.run_id, 0, [])])
        assert await client.has(1) == ["a"]
        await client.leave()
    publisher.close()


async def test_what_is_committed_late_has_lower_ids_and_is_not_missed(
    hub: StreamHub, database_url: str
) -> None:
    one, two = RunRows(database_url), RunRows(database_url, graph="second")
    client = Client()
    await client.connect(hub)
    slow = Writing(database_url)
    slow.write(one, "slow")
    write(two, "quick")
    resumed = Client(after=client.after)
    await resumed.connect(hub)
    slow.commit()
    assert await client.has(2) == ["slow", "quick"]
    assert await resumed.has(2) == ["slow", "quick"]
    await client.leave()
    await resumed.leave()


async def test_a_transaction_that_waited_for_another_comes_after_it(
    hub: StreamHub, database_url: str
) -> None:
    """Its number is lower, since it had begun; its ids in the run are higher."""
    rows = RunRows(database_url)
    client = Client()
    await client.connect(hub)
    waited, before = Writing(database_url), Writing(database_url)
    before.write(rows, "first")
    before.commit()
    waited.write(rows, "second")
    waited.commit()
    assert await client.has(2) == ["first", "second"]
    await client.leave()


async def test_what_is_rolled_back_does_not_hold_up_others(
    hub: StreamHub, database_url: str
) -> None:
    one, two = RunRows(database_url), RunRows(database_url, graph="second")
    client = Client()
    await client.connect(hub)
    writing = Writing(database_url)
    writing.write(one, "never")
    write(two, "a")
    writing.rollback()
    write(two, "b")
    assert await client.has(2) == ["a", "b"]
    await client.leave()


async def test_a_transaction_of_another_database_holds_nothing_up(
    hub: StreamHub, database_url: str
) -> None:
    rows, client = RunRows(database_url), Client()
    with connect(with_database(database_url, "postgres")) as other, other.transaction():
        other.execute("SELECT pg_current_xact_id()")
        await client.connect(hub)
        write(rows, "0")
        assert await client.has(1) == ["0"]
        await client.leave()
        write(rows, "1")
        await client.connect(hub)
        assert await client.has(2) == ["0", "1"]
    await client.leave()


RUNS = TRANSACTIONS = 3
STEP = st.one_of(
    st.tuples(st.sampled_from(["begin", "commit", "rollback"]), st.integers(0, TRANSACTIONS - 1)),
    st.tuples(
        st.just("write"), st.tuples(st.integers(0, TRANSACTIONS - 1), st.integers(0, RUNS - 1))
    ),
    st.tuples(st.just("reconnect"), st.tuples(st.integers(0, 1), st.integers(0, 1))),
    st.tuples(st.just("wait"), st.just(0)),
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(STEP, min_size=5, max_size=40))
def test_any_order_of_transactions_and_reconnections(
    steps: Sequence[tuple[str, object]], database_url: str, redis_url: str
) -> None:
    asyncio.run(_scenario(steps, database_url, redis_url))


async def _scenario(steps: Sequence[tuple[str, object]], database_url: str, redis_url: str) -> None:
    """Two clients, each now at one and now at another process, while three transactions write.

    A third and a fourth stay where they are while a transaction is open: at a process where nobody
    follows the tenant, a stream begins only when it has ended.
    """
    tenant = TenantId(f"t-{new_id()[-12:]}")
    runs = [RunRows(database_url, tenant=tenant, graph=f"g{number}") for number in range(RUNS)]
    open_now: dict[int, Writing] = {}
    committed: list[tuple[RunRows, str]] = []
    async with (
        async_pool(database_url, size=4) as pool,
        async_redis(redis_url) as redis,
        StreamHub(pool, TenantPool(pool), redis, silence_seconds=0.002) as first,
        StreamHub(pool, TenantPool(pool), redis, silence_seconds=0.005) as second,
    ):
        hubs, clients = (first, second), [Client(tenant) for _ in range(4)]
        for client, hub in zip(clients, (*hubs, *hubs), strict=True):
            await client.connect(hub)
        for number, (what, which) in enumerate(steps):
            match what, which:
                case "begin", int(mine) if mine not in open_now:
                    open_now[mine] = Writing(database_url)
                case "commit", int(mine) if mine in open_now:
                    ended = open_now.pop(mine)
                    ended.commit()
                    committed += ended.wrote
                case "rollback", int(mine) if mine in open_now:
                    open_now.pop(mine).rollback()
                case "write", (int(mine), int(run)) if mine in open_now:
                    locked = {
                        id(rows) for i, w in open_now.items() if i != mine for rows, _ in w.wrote
                    }
                    if id(runs[run]) not in locked:
                        open_now[mine].write(runs[run], str(number))
                case "reconnect", (int(client), int(hub)):
                    await clients[client].leave()
                    if not open_now:
                        await clients[2 + hub].leave()  # and its process's tail may end
                        await clients[2 + hub].connect(hubs[hub])
                    await clients[client].connect(hubs[hub])
                case _:
                    await asyncio.sleep(0.004)
        for ended in open_now.values():
            ended.commit()
            committed += ended.wrote
        for client in clients:
            with suppress(TimeoutError):
                await client.has(len(committed))
            await client.leave()
            for rows in runs:
                wrote = [text for run, text in committed if run is rows]
                got = [
                    each.event["data"]["message"]
                    for each in client.got
                    if each.event["run_id"] == rows.run_id
                ]
                assert got == wrote
