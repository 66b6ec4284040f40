"""The stream of a run that a real worker executes: what its writer publishes is what is stored."""

import asyncio
from contextlib import aclosing
from typing import Any

from dynamic_jobs.reading.event_log import read_events
from dynamic_jobs.reading.events import RunEvent, channel_of
from dynamic_jobs.reading.runs import RunStore
from dynamic_jobs.reading.stream import StreamHub
from foundation.database import async_pool
from foundation.ids import RunId
from foundation.redis import async_redis
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value
from tests.dynamic_jobs.stream_client import subscribed


async def follow(
    bench: Bench, run_id: RunId, *, silence_seconds: float = 3_600
) -> tuple[list[RunEvent], list[RunEvent], Any]:
    """Have a worker execute a queued run. Its events as they were streamed and as they are stored,
    and the run.
    """
    urls = bench.settings
    async with (
        asyncio.timeout(60),
        async_pool(urls.database_url, size=4) as pool,
        async_redis(urls.redis_url) as redis,
        StreamHub(pool, TenantPool(pool), redis, silence_seconds=silence_seconds) as hub,
    ):
        streamed: list[RunEvent] = []

        async def take() -> None:
            async with aclosing(hub.follow(TENANT, run_id, 0)) as batches:
                async for batch in batches:
                    streamed.extend(batch)

        taking = asyncio.create_task(take())
        await subscribed(redis, channel_of(run_id))  # else its end may be told to nobody
        with bench.worker():
            await taking
        async with pool.connection() as connection:
            page = await read_events(connection, TENANT, run_id, 0, 1_000)
        return streamed, list(page.events), await RunStore(TenantPool(pool)).get(TENANT, run_id)


def types(events: list[RunEvent], node: str | None) -> list[str]:
    return [event["type"] for event in events if event["node"] == node]


def test_a_run_that_succeeds(bench: Bench) -> None:
    nodes = {"a": value([1, 2]), "b": value("${{ size(nodes.a.output) }}", "a")}
    run_id = bench.start(bench.publish(graph(nodes, outputs={"n": "${{ nodes.b.output }}"})))
    streamed, stored, run = asyncio.run(follow(bench, run_id))
    assert streamed == stored
    assert types(streamed, None) == ["run.queued", "run.started", "run.succeeded"]
    assert types(streamed, "b") == ["node.started", "node.output", "node.succeeded"]
    outputs = {event["node"]: event["data"] for event in streamed if event["type"] == "node.output"}
    assert outputs == {"a": {"bytes": 5, "value": [1, 2]}, "b": {"bytes": 1, "value": 2}}
    assert streamed[-1]["data"] == {"outputs": {"n": 2}}
    assert run.outputs == {"n": 2}
    assert {node.status for node in run.nodes.values()} == {"succeeded"}


def test_a_run_that_fails(bench: Bench) -> None:
    nodes = {"a": value("${{ 1 / 0 }}"), "b": value(1, "a")}
    run_id = bench.start(bench.publish(graph(nodes)))
    streamed, stored, run = asyncio.run(follow(bench, run_id))
    assert streamed == stored
    assert types(streamed, "a") == ["node.started", "node.failed"]
    assert types(streamed, "b") == ["node.skipped"]
    assert types(streamed, None)[-1] == "run.failed"
    failed = next(event for event in streamed if event["type"] == "node.failed")
    error = failed["data"]["error"]
    assert error["code"] == "expression_failed"
    assert streamed[-1]["data"]["error"] == {**error, "node": "a"} == run.error
    assert run.nodes["a"].error == error
    assert [run.nodes[node].status for node in "ab"] == ["failed", "skipped"]
