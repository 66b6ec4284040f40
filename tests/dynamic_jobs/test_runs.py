"""Runs as tenants see them: lists, keyset pages, node states, outputs, the wall between tenants."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from dagster import DagsterEventType
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData, StepRetryData
from dagster._utils.error import SerializableErrorInfo

from dynamic_jobs.reading import event_log
from dynamic_jobs.reading.runs import RunStatus, RunStore
from foundation.database import AsyncPool, async_pool, connect
from foundation.errors import NotFound
from foundation.ids import GraphId, NodeId, RunId, TenantId, new_id
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.run_rows import ACME, RunRows, entry, failure, ran

pytestmark = pytest.mark.anyio

OTHER = TenantId("other")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncPool]:
    async with async_pool(database_url, size=2) as opened:
        yield opened


@pytest.fixture
def store(pool: AsyncPool) -> RunStore:
    return RunStore(TenantPool(pool))


async def test_a_run_in_full(store: RunStore, database_url: str) -> None:
    rows = RunRows(database_url, nodes=("z", "a"))
    rows.run_whole({"n": 1})
    run = await store.get(ACME, rows.run_id)
    assert (run.run_id, run.graph, run.graph_id) == (rows.run_id, "digest", rows.graph_id)
    assert (run.version, run.status, run.author) == (1, "succeeded", "me")
    assert (run.params, run.trigger, run.outputs) == ({"x": 1}, {"type": "rest"}, {"n": 1})
    assert run.ended_at is not None and run.ended_at.tzname() == "UTC"
    assert list(run.nodes) == ["z", "a"]
    node = run.nodes[NodeId("a")]
    assert (node.status, node.attempt, node.error) == ("succeeded", 1, None)
    assert node.started_at is not None
    assert node.started_at.isoformat() == "2023-11-14T22:13:20.250000+00:00"


async def test_nodes_are_pending_until_they_start(store: RunStore, database_url: str) -> None:
    rows = RunRows(database_url)
    run = await store.get(ACME, rows.run_id)
    assert {node.status for node in run.nodes.values()} == {"pending"}
    assert {node.attempt for node in run.nodes.values()} == {0}
    rows.write(entry(DagsterEventType.RUN_START), entry(DagsterEventType.STEP_START, "a"))
    run = await store.get(ACME, rows.run_id)
    assert run.status == "running"
    assert {name: node.status for name, node in run.nodes.items()} == {
        "a": "running",
        "b": "pending",
    }


async def test_retries_count_and_a_success_forgets_the_error(
    store: RunStore, database_url: str
) -> None:
    rows = RunRows(database_url, nodes=("a",))
    retry = StepRetryData(SerializableErrorInfo("m", [], "TimeoutError"), 1)
    rows.write(
        entry(DagsterEventType.STEP_START, "a"),
        entry(DagsterEventType.STEP_UP_FOR_RETRY, "a", retry),
    )
    node = (await store.get(ACME, rows.run_id)).nodes[NodeId("a")]
    assert (node.status, node.attempt, node.ended_at) == ("retrying", 1, None)
    assert node.error is not None and node.error["code"] == "internal"
    rows.write(entry(DagsterEventType.STEP_RESTARTED, "a"))
    rows.write(*ran("a")[1:])
    node = (await store.get(ACME, rows.run_id)).nodes[NodeId("a")]
    assert (node.status, node.attempt, node.error) == ("succeeded", 2, None)


async def test_a_failed_run_leaves_nothing_under_way(store: RunStore, database_url: str) -> None:
    rows = RunRows(database_url, nodes=("a", "b", "c", "d"))
    rows.write(*[entry(DagsterEventType.STEP_START, node) for node in "ab"])
    rows.write(failure("a", "too_big", "no", ""), entry(DagsterEventType.STEP_SKIPPED, "c"))
    error = {"code": "too_big", "message": "no", "hint": "", "node": "a"}
    rows.write(entry(DagsterEventType.RUN_FAILURE), error=error)
    run = await store.get(ACME, rows.run_id)
    assert run.error == error
    states = {name: node.status for name, node in run.nodes.items()}
    assert states == {"a": "failed", "b": "cancelled", "c": "skipped", "d": "skipped"}


async def test_a_cancelled_run_cancels_what_had_not_ended(
    store: RunStore, database_url: str
) -> None:
    rows = RunRows(database_url, nodes=("a", "b", "c", "d"))
    rows.write(*ran("a"), entry(DagsterEventType.STEP_START, "b"))
    stopped = StepFailureData(SerializableErrorInfo("", [], "x"), None, ErrorSource.INTERRUPT)
    rows.write(
        entry(DagsterEventType.STEP_START, "c"), entry(DagsterEventType.STEP_FAILURE, "c", stopped)
    )
    rows.write(entry(DagsterEventType.RUN_CANCELED))
    states = {n: s.status for n, s in (await store.get(ACME, rows.run_id)).nodes.items()}
    assert states == {"a": "succeeded", "b": "cancelled", "c": "cancelled", "d": "cancelled"}


async def test_lists_page_through_every_run_once_newest_first(
    store: RunStore, database_url: str
) -> None:
    first = RunRows(database_url)
    graph_id = first.graph_id
    made = [first, *(RunRows(database_url, graph_id=graph_id) for _ in range(6))]
    elsewhere = RunRows(database_url, graph="weekly")
    RunRows(database_url, tenant=OTHER)
    for rows in made[::2]:
        rows.succeed()

    async def pages(limit: int, **filters: Any) -> list[list[str]]:
        found: list[list[str]] = []
        before: str | None = None
        while True:
            page = await store.list(ACME, limit=limit, before=before, **filters)
            found.append([item.run_id for item in page.items])
            before = page.next_before
            if before is None:
                return found

    def flat(found: list[list[str]]) -> list[str]:
        return [run_id for page in found for run_id in page]

    newest_first = [rows.run_id for rows in reversed(made)]
    assert await pages(50) == [[elsewhere.run_id, *newest_first]]
    assert flat(await pages(3)) == [elsewhere.run_id, *newest_first]
    of_graph = await pages(7, graph_id=GraphId(graph_id))
    assert of_graph == [newest_first], "a page that is just full is the last one"
    succeeded: RunStatus = "succeeded"
    assert flat(await pages(1, statuses=[succeeded])) == newest_first[::2]
    both = await pages(2, statuses=[succeeded], graph_id=GraphId(graph_id))
    assert flat(both) == newest_first[::2]
    assert await pages(5, statuses=["failed"]) == [[]]


async def test_another_tenant_is_told_that_there_is_no_such_run(
    store: RunStore, pool: AsyncPool, database_url: str
) -> None:
    rows = RunRows(database_url)
    rows.run_whole()
    for tenant, run_id in ((OTHER, rows.run_id), (ACME, RunId(new_id()))):
        with pytest.raises(NotFound):
            await store.get(tenant, run_id)
        with pytest.raises(NotFound):
            await store.output(tenant, run_id, NodeId("a"))
        async with pool.connection() as connection:
            with pytest.raises(NotFound):
                await event_log.read_events(connection, tenant, run_id, 0, 10)
    assert (await store.list(OTHER)).items == []


async def test_a_nodes_output_keeps_its_numbers(store: RunStore, database_url: str) -> None:
    rows = RunRows(database_url)
    text = '{"big":12345678901234567890123,"whole":2.0}'
    with connect(database_url) as connection:
        connection.execute(
            "INSERT INTO graphwright.node_outputs VALUES (%s, %s, 'a', %s)",
            [ACME, rows.run_id, text],
        )
    assert await store.output(ACME, rows.run_id, NodeId("a")) == text
    with pytest.raises(NotFound, match="'b'"):
        await store.output(ACME, rows.run_id, NodeId("b"))


@pytest.mark.parametrize("text", ["", "x", "{0190b2c4-0000-7000-8000-000000000000}", "0" * 32])
def test_what_is_no_run_id_is_no_run(text: str) -> None:
    with pytest.raises(NotFound):
        event_log.run_id_of(text)


def test_a_run_id_is_known_in_capitals_too() -> None:
    run_id = new_id()
    assert event_log.run_id_of(run_id.upper()) == run_id
