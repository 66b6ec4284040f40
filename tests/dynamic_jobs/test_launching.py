"""Creating runs: what is stored of them, and group commit."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg
import pytest
from dagster import DagsterRun, DagsterRunStatus, EventLogEntry, RunsFilter
from dagster._core.storage.tags import PARENT_RUN_ID_TAG
from dagster._record import copy  # pyright: ignore[reportUnknownVariableType]
from dagster._serdes import deserialize_value
from hypothesis import given, strategies
from psycopg_pool import PoolTimeout

from dynamic_jobs import naming
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.creating.launchable import Launchable, parent_tags
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.creating.new_run import NewRun, Refusal, dagster_run, enqueued
from dynamic_jobs.creating.run_batches import InDoubt, RunBatches
from dynamic_jobs.creating.run_texts import RunTexts
from dynamic_jobs.creating.trigger import Parent, Trigger
from foundation.database import AsyncPool, async_pool
from foundation.ids import GraphId, GraphVersionId, NodeId, RunId, TenantId, new_id
from foundation.settings import Limits
from foundation.tenant_pool import TenantPool
from graph_defs.expressions import Evaluator
from graph_defs.fingerprint import Canonical
from graph_defs.publishing import Publication
from graph_defs.store import GraphStore
from graph_defs.versions import GraphVersion
from tests.dynamic_jobs.conftest import TENANT, Bench, graph, value

pytestmark = pytest.mark.anyio

TABLES = ("runs", "graphwright.runs", "graphwright.run_queue", "event_logs")


@pytest.fixture
async def pool(bench: Bench) -> AsyncGenerator[AsyncPool]:
    async with async_pool(bench.settings.database_url, size=4) as pool:
        yield pool


@pytest.fixture
async def creator(bench: Bench, pool: AsyncPool) -> AsyncGenerator[RunCreator]:
    creator = creator_of(bench, pool)
    yield creator
    await creator.close()


def creator_of(bench: Bench, pool: AsyncPool, compiler: Compiler | None = None) -> RunCreator:
    return RunCreator(
        pool, TenantPool(pool), bench.storage, compiler or Compiler(bench.runtime), bench.runtime
    )


async def publish(pool: AsyncPool, schema: dict[str, Any] | None = None, **more: Any) -> str:
    """Publish a graph, and return its id."""
    document = graph({"a": value(1)}, params=schema or {"type": "object"}, **more)
    store = GraphStore(TenantPool(pool))
    await store.ensure_tenant(TENANT)
    published, _ = await store.apply(
        TENANT, Publication(Canonical.of(document), {"data.transform": 1}, "ann")
    )
    return published.graph_id


def trigger(params: dict[str, Any] | None = None, **more: Any) -> Trigger:
    return Trigger(params or {}, {"type": "rest"}, more.pop("author", "ann"), **more)


async def start(creator: RunCreator, name: str = "tested", **more: Any) -> RunId:
    return (await creator.start(TENANT, name, trigger(**more))).run_id


def stored(bench: Bench) -> list[set[str]]:
    """The ids of the runs that each table has, and no id twice."""
    found: list[set[str]] = []
    for table in TABLES:
        rows = bench.connection.execute(f"SELECT run_id::text FROM {table}").fetchall()  # type: ignore
        ids = [row["run_id"] for row in rows]
        assert len(ids) == len(set(ids)), table
        found.append(set(ids))
    return found


def read_by_dagster(bench: Bench, run_id: RunId) -> DagsterRun:
    (run,) = bench.storage.runs.get_runs(RunsFilter(run_ids=[run_id]))
    return run


def snapshot_ids(run: DagsterRun) -> tuple[str, str]:
    """Of its job and of its plan."""
    assert run.job_snapshot_id is not None and run.execution_plan_snapshot_id is not None
    return run.job_snapshot_id, run.execution_plan_snapshot_id


def transactions(bench: Bench) -> int:
    row = bench.connection.execute(
        "SELECT count(DISTINCT xmin::text) AS n FROM graphwright.runs"
    ).fetchone()
    assert row is not None
    return row["n"]


@asynccontextmanager
async def no_run_can_be_written(bench: Bench, pool: AsyncPool) -> AsyncGenerator[None]:
    """Let the writing of runs wait in the database until the block ends."""
    async with pool.connection() as holder, holder.transaction():
        await holder.execute("LOCK TABLE graphwright.run_queue IN ACCESS EXCLUSIVE MODE")
        yield


async def until_a_writer_waits(bench: Bench) -> int:
    """The process id of the database session that waits for the lock."""
    while True:
        row = bench.connection.execute(
            "SELECT pid FROM pg_locks WHERE NOT granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchone()
        if row is not None:
            return row["pid"]
        await asyncio.sleep(0)


MARKS = [
    *("@run@", "@name@__@graph@", "@version@", "@tenant@", "@job@", "@plan@", "@params@"),
    *('"@params@"', '{"@tags@": ""}', "1234567890.125", 'q"\\', "\0", "\u2028é"),
]
"""What the texts of runs have gaps for, and what JSON escapes."""

texts = strategies.text(strategies.characters(exclude_categories=["Cs"]))
json_values = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**53) + 1, 2**53 - 1)
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | texts
    | strategies.sampled_from([*MARKS, {"@tags@": ""}]),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text("ab@"), inner),
    max_leaves=8,
)
tag_names = [naming.TENANT_TAG, naming.TRIGGER_TAG, ".dagster/repository", PARENT_RUN_ID_TAG]
parents = strategies.builds(
    Parent,
    run_id=strategies.just(RunId(new_id())),
    root_run_id=strategies.just(RunId(new_id())),
    from_failure=strategies.booleans(),
    steps=strategies.none() | strategies.just((NodeId("one"),)),
    plan_snapshot_id=strategies.just("partial"),
)


@given(
    params=strategies.dictionaries(strategies.text('ab@\\"'), json_values),
    kind=strategies.sampled_from(["rest", "webhook", "timer"]),
    tenant=strategies.sampled_from([TENANT, *MARKS]),
    name=strategies.sampled_from(["some-graph", *MARKS]),
    tags=strategies.dictionaries(strategies.sampled_from([*tag_names, *MARKS]), texts),
    parent=strategies.none() | parents,
)
def test_the_texts_are_what_dagster_would_write(
    params: dict[str, Any],
    kind: str,
    tenant: str,
    name: str,
    tags: dict[str, str],
    parent: Parent | None,
) -> None:
    version = GraphVersion(
        graph_version_id=GraphVersionId(new_id()),
        graph_id=GraphId(new_id()),
        tenant=TenantId(tenant),
        name=name,
        version=3,
        fingerprint="0" * 64,
        document={},
        node_types={},
        author="ann",
        created_at=datetime.now(UTC),
    )
    new = NewRun(RunId(new_id()), params, {"type": kind}, "ann", parent=parent, tags=tags)
    code_server = "127.0.0.1", 4000
    launchable = Launchable.of(version, ("job", "plan"), RunTexts(code_server), Evaluator(Limits()))
    row = orjson.loads(launchable.row(new, if_published=True))
    expected = dagster_run(
        new.run_id,
        version,
        params,
        {naming.TRIGGER_TAG: kind, **tags, **(parent_tags(parent) if parent else {})},
        ("job", "plan"),
        code_server,
    )
    if parent is not None:
        ids: dict[str, Any] = {"parent_run_id": parent.run_id, "root_run_id": parent.root_run_id}
        if parent.steps is not None:
            ids |= {"execution_plan_snapshot_id": parent.plan_snapshot_id}
            ids |= {"step_keys_to_execute": list(parent.steps)}
        expected = copy(expected, **ids)
    assert deserialize_value(row["run_body"], DagsterRun) == expected
    assert row["tags"] == expected.tags_for_storage()
    event = deserialize_value(row["event"], EventLogEntry)
    at = datetime.fromisoformat(row["created_at"]).timestamp()
    assert event.timestamp == pytest.approx(at, abs=1e-5)
    assert event == enqueued(new.run_id, expected.job_name, event.timestamp)
    assert orjson.loads(row["params"]) == orjson.loads(orjson.dumps(params))


async def test_dagster_reads_the_run(bench: Bench, pool: AsyncPool, creator: RunCreator) -> None:
    await publish(pool)
    run_id = await start(creator, params={"x": [1.5, "\u2028"]})
    run = read_by_dagster(bench, run_id)
    assert run.status is DagsterRunStatus.QUEUED
    assert run.run_config == {"resources": {"params": {"config": {"x": [1.5, "\u2028"]}}}}
    job_snapshot_id, plan_snapshot_id = snapshot_ids(run)
    assert bench.storage.runs.has_job_snapshot(job_snapshot_id)
    assert bench.storage.runs.has_execution_plan_snapshot(plan_snapshot_id)
    assert bench.events(run_id) == [("PIPELINE_ENQUEUED", None)]
    event_id = bench.connection.execute("SELECT id FROM event_logs").fetchone()
    assert event_id is not None and bench.row(run_id)["last_event_id"] == event_id["id"]


async def test_runs_that_come_together_are_created_together(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    first = await start(creator)
    others = await asyncio.gather(*(start(creator) for _ in range(50)))
    assert stored(bench) == [{first, *others}] * len(TABLES)
    assert transactions(bench) == 2


async def test_those_that_come_during_a_write_are_the_next_batch(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    await start(creator)
    async with no_run_can_be_written(bench, pool):
        one = asyncio.create_task(start(creator))
        await until_a_writer_waits(bench)
        more = [asyncio.create_task(start(creator, priority=n)) for n in range(20)]
        await asyncio.sleep(0)
        assert not one.done()
    await asyncio.gather(one, *more)
    assert transactions(bench) == 3
    queue = bench.connection.execute("SELECT priority FROM graphwright.run_queue ORDER BY run_id")
    assert [row["priority"] for row in queue] == [0, 0, *range(20)]


async def test_batches_are_bounded(bench: Bench, pool: AsyncPool, creator: RunCreator) -> None:
    await publish(pool)
    await start(creator)
    await asyncio.gather(*(start(creator) for _ in range(300)))
    assert transactions(bench) == 1 + 2, "at most 256 runs"
    big = {"x": "y" * 900_000}
    await asyncio.gather(*(start(creator, params=big) for _ in range(4)))
    assert transactions(bench) == 3 + 2, "at most 4 MiB, and params are there twice"


async def test_a_run_that_is_refused_costs_only_itself(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    first = await start(creator)
    bad = start(creator, author="a\0b")
    made = await asyncio.gather(
        *(start(creator) for _ in range(3)), bad, start(creator), return_exceptions=True
    )
    assert isinstance(made[3], psycopg.DataError)
    good = {run_id for run_id in made if isinstance(run_id, str)}
    assert len(good) == 4
    assert stored(bench) == [{first, *good}] * len(TABLES)


async def test_a_run_id_that_is_taken_costs_only_itself(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    version = await GraphStore(TenantPool(pool)).published(TENANT, "tested")
    taken = await start(creator)
    snapshots = snapshot_ids(read_by_dagster(bench, taken))
    launchable = Launchable.of(
        version, snapshots, RunTexts(bench.settings.code_server), bench.runtime.evaluator
    )
    batches = RunBatches(pool, 1.0)

    def create(run_id: RunId) -> Coroutine[Any, Any, Refusal | None]:
        row = launchable.row(NewRun(run_id, {}, {"type": "rest"}, "ann"), if_published=False)
        return batches.create(run_id, row, TENANT)

    fresh = RunId(new_id())
    refused, created = await asyncio.gather(create(taken), create(fresh), return_exceptions=True)
    assert isinstance(refused, psycopg.errors.UniqueViolation)
    assert created is None, "it was not refused"
    assert stored(bench) == [{taken, fresh}] * len(TABLES)


async def test_callers_that_leave_take_nobody_with_them(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    first = await start(creator)
    async with no_run_can_be_written(bench, pool):
        leaving = asyncio.create_task(start(creator, priority=1))
        staying = asyncio.create_task(start(creator, priority=2))
        await until_a_writer_waits(bench)
        not_yet = asyncio.create_task(start(creator, priority=3))
        after = asyncio.create_task(start(creator, priority=4))
        await asyncio.sleep(0)
        leaving.cancel()
        not_yet.cancel()
        await asyncio.wait((leaving, not_yet))
        assert not staying.done()
    made = {first, await staying, await after}
    found = stored(bench)
    assert found == [found[0]] * len(TABLES)
    assert made < found[0]
    (written,) = found[0] - made
    assert bench.row(RunId(written))["priority"] == 1, "what had not been sent is not created"


async def test_closing_waits_for_what_is_being_written(bench: Bench, pool: AsyncPool) -> None:
    creator = creator_of(bench, pool)
    await publish(pool)
    first = await start(creator)
    async with no_run_can_be_written(bench, pool):
        run = asyncio.create_task(start(creator))
        await until_a_writer_waits(bench)
        closing = asyncio.create_task(creator.close())
        await asyncio.sleep(0)
        assert not closing.done()
    await closing
    assert run.done() or await run
    assert stored(bench) == [{first, run.result()}] * len(TABLES)


async def test_a_lost_connection_is_told_and_nothing_is_written_twice(
    bench: Bench, pool: AsyncPool, creator: RunCreator
) -> None:
    await publish(pool)
    first = await start(creator)
    async with no_run_can_be_written(bench, pool):
        cut = [asyncio.create_task(start(creator)) for _ in range(2)]
        writer = await until_a_writer_waits(bench)
        next_batch = asyncio.create_task(start(creator))
        await asyncio.sleep(0)
        bench.connection.execute("SELECT pg_terminate_backend(%s)", (writer,))
        await asyncio.wait(cut)
    told = [task.exception() for task in cut]
    assert all(isinstance(error, InDoubt) for error in told)
    ids = {error.ids["run_id"] for error in told if isinstance(error, InDoubt)}
    assert len(ids) == 2
    made = {first, await next_batch}
    assert stored(bench) == [made] * len(TABLES)


async def test_a_database_that_is_away(bench: Bench, pool: AsyncPool, creator: RunCreator) -> None:
    await publish(pool)
    await start(creator)
    async with async_pool(bench.settings.database_url, size=1) as full:
        full.timeout = 0.01
        batches = RunBatches(full, 1.0)
        rows = b"{}", b" " * 5_000_000, b"{}"  # three batches
        async with full.connection(timeout=30):
            made = await asyncio.gather(
                *(batches.create(RunId(new_id()), row, TENANT) for row in rows),
                return_exceptions=True,
            )
        assert [type(error) for error in made] == [PoolTimeout] * 3
        assert full.get_stats()["requests_errors"] == 1, "nobody waits for another's time"
    await start(creator)
