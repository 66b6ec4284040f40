"""The inbox on a real PostgreSQL: what is kept, and what is known when it comes again."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from dynamic_jobs.queueing.waking import COSTLY_DELIVERIES, DELIVERIES, DISPATCH_CHANNEL
from foundation.database import AsyncConnection, AsyncPool, async_connect, async_pool
from foundation.errors import Unavailable
from foundation.ids import GraphId, TenantId, TriggerId, new_id
from graphwright.embedded import EmbeddedPostgres
from sensors.inbox import Accepted, Arrival, Inbox
from tests import services

pytestmark = pytest.mark.anyio

TRIGGER = TriggerId(new_id())


def arrival(*keys: str, **fields: Any) -> Arrival:
    given: dict[str, Any] = {
        "tenant": TenantId("acme"),
        "trigger_id": TRIGGER,
        "graph_id": GraphId("11111111-1111-7111-8111-111111111111"),
        "headers": {"content-type": "application/json"},
        "query": {},
        "at": time.time(),
        "body": b"{}",
        "keys": dict.fromkeys(keys, 60.0),
    }
    return Arrival(**{**given, **fields})


@pytest.fixture
async def pool(database_url: str) -> AsyncGenerator[AsyncPool]:
    async with async_pool(database_url) as pool:
        yield pool


@pytest.fixture
def inbox(pool: AsyncPool) -> Inbox:
    return Inbox(pool)


async def rows(pool: AsyncPool, table: str = "deliveries") -> list[dict[str, Any]]:
    query: Any = f"SELECT * FROM graphwright.{table}"
    async with pool.connection() as connection:
        return await (await connection.execute(query)).fetchall()


async def test_what_is_kept(inbox: Inbox, pool: AsyncPool) -> None:
    body = bytes(range(256))
    accepted = await inbox.accept(
        arrival(
            "id:1",
            headers={"x-odd": "\x01 ' \\u0000 é"},
            query={"a": "\x00", "b": ["1", "2"]},
            body=body,
            sender_id="1",
            at=1_700_000_000.25,
        )
    )
    (row,) = await rows(pool)
    assert str(row["delivery_id"]) == accepted.delivery_id
    assert (row["body"], row["sender_id"], row["verdict"]) == (body, "1", "pending")
    assert row["headers"] == {"x-odd": "\x01 ' \\u0000 é"}
    assert row["received_at"].timestamp() == 1_700_000_000.25
    async with pool.connection() as connection:
        query = "SELECT query::text FROM graphwright.deliveries"  # PostgreSQL cannot show a \u0000
        (kept,) = await (await connection.execute(query)).fetchall()
    assert kept["query"] == '{"a":"\\u0000","b":["1","2"]}'
    (queued,) = await rows(pool, "delivery_queue")
    assert (str(queued["delivery_id"]), queued["tenant"]) == (accepted.delivery_id, "acme")


async def test_bodies_of_a_batch_are_not_mixed_up(inbox: Inbox, pool: AsyncPool) -> None:
    bodies = [b"", b"a", b"\x00\xff", None, "ü".encode() * 9, b"", b"end"]
    accepted = await asyncio.gather(
        *(inbox.accept(arrival(f"id:{n}", body=body)) for n, body in enumerate(bodies))
    )
    kept = {str(row["delivery_id"]): row["body"] for row in await rows(pool)}
    assert [kept[each.delivery_id] for each in accepted] == bodies


async def test_a_repeated_call_is_the_first_one(inbox: Inbox, pool: AsyncPool) -> None:
    first = await inbox.accept(arrival("id:1"))
    again = await inbox.accept(arrival("id:1", body=b"changed"))
    assert first == Accepted(first.delivery_id)
    assert again == Accepted(first.delivery_id, duplicate=True)
    other = await inbox.accept(arrival("id:1", trigger_id=TriggerId(new_id())))
    elsewhere = await inbox.accept(arrival("id:1", tenant=TenantId("else")))
    assert not other.duplicate
    assert not elsewhere.duplicate
    assert len(await rows(pool)) == len(await rows(pool, "delivery_queue")) == 3


async def test_a_repeated_call_within_one_batch(inbox: Inbox, pool: AsyncPool) -> None:
    calls = [arrival(f"id:{n % 3}", f"content:{n % 6}") for n in range(30)]
    accepted = await asyncio.gather(*map(inbox.accept, calls))
    assert [each.duplicate for each in accepted] == [False] * 3 + [True] * 27
    assert len({each.delivery_id for each in accepted}) == 3
    assert len(await rows(pool)) == 3


async def test_one_known_key_is_enough_and_takes_no_other(inbox: Inbox, pool: AsyncPool) -> None:
    first = await inbox.accept(arrival("id:1", "content:a"))
    replayed = await inbox.accept(arrival("id:2", "content:a"))
    assert replayed == Accepted(first.delivery_id, duplicate=True)
    honest = await inbox.accept(arrival("id:2", "content:b"))
    assert not honest.duplicate
    assert {row["key"] for row in await rows(pool, "delivery_keys")} == {
        "id:1", "content:a", "id:2", "content:b",
    }  # fmt: skip


async def test_an_expired_key_may_be_taken_again(inbox: Inbox, pool: AsyncPool) -> None:
    first = await inbox.accept(arrival(keys={"id:1": -1, "content:a": -1}))
    second = await inbox.accept(arrival("id:1", "content:a"))
    third = await inbox.accept(arrival("id:1"))
    assert not second.duplicate
    assert second.delivery_id != first.delivery_id
    assert third == Accepted(second.delivery_id, duplicate=True)
    assert len(await rows(pool)) == 2


async def test_each_key_has_its_time(inbox: Inbox, pool: AsyncPool) -> None:
    first = await inbox.accept(arrival(keys={"id:1": 60, "content:a": -1}))
    assert not (await inbox.accept(arrival("id:2", "content:a"))).duplicate
    assert (await inbox.accept(arrival("id:1"))) == Accepted(first.delivery_id, duplicate=True)


@pytest.mark.parametrize("off_by", [-3_600, 3_600])
async def test_keys_expire_by_the_clock_of_the_database(inbox: Inbox, off_by: float) -> None:
    at = time.time() + off_by
    calls = [arrival("id:1", at=at), arrival("id:2", "content:a", at=at)]
    assert not any([(await inbox.accept(call)).duplicate for call in calls])
    assert all([(await inbox.accept(call)).duplicate for call in calls])
    expired = arrival(keys={"id:3": -1}, at=at)
    assert not any([(await inbox.accept(expired)).duplicate for _ in range(2)])


async def test_without_keys_nothing_is_a_repeat(inbox: Inbox, pool: AsyncPool) -> None:
    await asyncio.gather(*(inbox.accept(arrival()) for _ in range(5)))
    assert len(await rows(pool)) == 5
    assert not await rows(pool, "delivery_keys")


@pytest.mark.parametrize("keys", [("id:1",), ("id:1", "content:a")])
async def test_two_receivers_at_once(pool: AsyncPool, keys: tuple[str, ...]) -> None:
    inboxes = [Inbox(pool) for _ in range(4)]
    for round_ in range(10):
        call = arrival(*(f"{key}:{round_}" for key in keys))
        accepted = await asyncio.gather(*(each.accept(call) for each in inboxes))
        assert len({each.delivery_id for each in accepted}) == 1
        assert sum(not each.duplicate for each in accepted) == 1
    assert len(await rows(pool)) == 10


async def test_many_receivers_with_the_same_calls_in_other_orders(pool: AsyncPool) -> None:
    """No two of them wait for each other."""
    calls = [arrival(f"id:{n}", f"content:{n}") for n in range(64)]
    orders = [calls, calls[::-1], calls[32:] + calls[:32], calls[1::2] + calls[::2]]
    inboxes = [Inbox(pool) for _ in orders]
    accepted = await asyncio.gather(
        *(
            inbox.accept(call)
            for inbox, order in zip(inboxes, orders, strict=True)
            for call in order
        )
    )
    assert len(await rows(pool)) == 64
    assert sum(not each.duplicate for each in accepted) == 64


async def test_a_dispatcher_is_told_once_a_batch(
    inbox: Inbox, pool: AsyncPool, database_url: str
) -> None:
    listener = await async_connect(database_url)
    async with listener:
        await listener.execute(f"LISTEN {DISPATCH_CHANNEL}")
        await asyncio.gather(*(inbox.accept(arrival(f"id:{n}")) for n in range(20)))
        await inbox.accept(arrival("id:1"))
        await inbox.accept(arrival(refused="no"))
        await listener.execute("NOTIFY graphwright_triggers, 'end'")
        told = [note.payload async for note in listener.notifies(timeout=30, stop_after=2)]
        assert told == [DELIVERIES, "end"]


@pytest.mark.parametrize(
    ("content_type", "size", "costly"),
    [
        ("application/json", 65_536, False),
        ("application/json", 65_537, True),
        ("text/plain", 65_537, True),
        ("application/x-www-form-urlencoded", 8_192, False),
        ("Application/X-WWW-Form-urlencoded; charset=utf-8", 8_193, True),
    ],
)
async def test_what_takes_long_to_read_is_dispatched_apart(
    inbox: Inbox, pool: AsyncPool, database_url: str, content_type: str, size: int, costly: bool
) -> None:
    call = arrival(headers={"content-type": content_type}, body=b"x" * size)
    async with await async_connect(database_url) as listener:
        await listener.execute(f"LISTEN {DISPATCH_CHANNEL}")
        await inbox.accept(call)
        told = [note.payload async for note in listener.notifies(timeout=30, stop_after=1)]
    assert told == [COSTLY_DELIVERIES if costly else DELIVERIES]
    assert [row["costly"] for row in await rows(pool, "delivery_queue")] == [costly]


async def test_both_dispatchers_are_told_of_a_batch_for_both(
    inbox: Inbox, pool: AsyncPool, database_url: str
) -> None:
    bodies = {"id:1": b"{}", "id:2": b"x" * 100_000, "id:3": b"{}", "id:4": b"x" * 100_000}
    async with await async_connect(database_url) as listener:
        await listener.execute(f"LISTEN {DISPATCH_CHANNEL}")
        # The first is a batch of its own.
        await asyncio.gather(
            *(inbox.accept(arrival(key, body=body)) for key, body in bodies.items())
        )
        told = {note.payload async for note in listener.notifies(timeout=30, stop_after=2)}
    assert told == {DELIVERIES, COSTLY_DELIVERIES}
    assert sorted(row["costly"] for row in await rows(pool, "delivery_queue")) == [
        False, False, True, True,
    ]  # fmt: skip


async def test_a_refused_call_is_kept_and_not_queued(inbox: Inbox, pool: AsyncPool) -> None:
    await inbox.accept(arrival(body=None, refused="the signature does not match"))
    (row,) = await rows(pool)
    assert (row["verdict"], row["reason"]) == ("refused", "the signature does not match")
    assert row["body"] is None
    assert row["decided_at"] == row["received_at"]
    assert not await rows(pool, "delivery_queue")


async def test_what_the_database_refuses_costs_only_itself(inbox: Inbox, pool: AsyncPool) -> None:
    bad = replace(arrival("id:bad"), graph_id=GraphId("no uuid"))
    results = await asyncio.gather(
        *(inbox.accept(each) for each in (arrival("id:1"), arrival("id:2"), bad, arrival("id:3"))),
        return_exceptions=True,
    )
    assert [isinstance(result, psycopg.DataError) for result in results] == [
        False, False, True, False,
    ]  # fmt: skip
    assert len(await rows(pool)) == 3


async def test_a_caller_that_leaves_does_not_disturb_the_others(
    inbox: Inbox, pool: AsyncPool
) -> None:
    calls = [asyncio.create_task(inbox.accept(arrival(f"id:{n}"))) for n in range(5)]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[3].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(result, Accepted) for result in results] == [
        False, True, True, False, True,
    ]  # fmt: skip
    await inbox.close()
    assert len(await rows(pool)) in {3, 4}


async def test_a_connection_lost_in_the_commit_and_sent_again(
    inbox: Inbox, pool: AsyncPool, database_url: str
) -> None:
    """It may be there already; by its key it is one delivery all the same."""
    async with await async_connect(database_url) as other, other.transaction():
        await other.execute("LOCK TABLE graphwright.deliveries")
        lost = asyncio.create_task(inbox.accept(arrival("id:1")))
        async with await async_connect(database_url) as watch:
            await _end_who_waits(watch)
        with pytest.raises(Unavailable):
            await lost
    assert not (await inbox.accept(arrival("id:1"))).duplicate
    assert len(await rows(pool)) == 1


async def _end_who_waits(watch: AsyncConnection) -> None:
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while not await (await watch.execute(statement)).fetchall():
        pass


async def test_database_away_and_back(services_folder: Any, tmp_path: Any) -> None:
    postgres = EmbeddedPostgres(tmp_path)
    services.create_tables(postgres.start())
    try:
        async with async_pool(postgres.url, size=1) as pool:
            inbox = Inbox(pool)
            await inbox.accept(arrival("id:1"))
            postgres.stop()
            for _ in range(2):
                with pytest.raises((Unavailable, psycopg.OperationalError, PoolTimeout)):
                    await inbox.accept(arrival("id:2"))
            postgres.start()
            assert (await _accept_in_the_end(inbox, arrival("id:1"))).duplicate
            assert not (await inbox.accept(arrival("id:2"))).duplicate
    finally:
        postgres.stop()


async def _accept_in_the_end(inbox: Inbox, call: Arrival) -> Accepted:
    """Try as a sender does: the pool takes its time between attempts to connect."""
    while True:
        with suppress(Unavailable, psycopg.OperationalError, PoolTimeout):
            return await inbox.accept(call)
