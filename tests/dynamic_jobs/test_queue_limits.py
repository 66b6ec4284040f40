"""Limits of concurrency and quotas: by tenant, graph and key, with real workers."""

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.controlling.cancelling import cancel
from dynamic_jobs.creating.launching import RunCreator
from dynamic_jobs.creating.refusals import ConcurrencyConflict, QuotaExceeded
from dynamic_jobs.creating.trigger import Trigger
from dynamic_jobs.storage import GraphwrightStorage
from foundation.database import AsyncPool, async_pool
from foundation.errors import Invalid
from foundation.ids import RunId
from foundation.tenant_pool import TenantPool
from tests.dynamic_jobs.conftest import TENANT, Bench, before_midnight, graph
from tests.dynamic_jobs.test_executor import Gate

RUNS = 200
KEYED = "${{ params.customer }}"
PARAMS = {"type": "object", "properties": {"customer": {"type": "string", "default": "none"}}}


def sleeper(name: str = "tested", seconds: float = 0.002, **concurrency: Any) -> dict[str, Any]:
    more: dict[str, Any] = {"concurrency": concurrency} if concurrency else {}
    nodes = {"nap": {"type": "work.sleep", "with": {"seconds": seconds}}}
    return graph(nodes, name=name, params=PARAMS, **more)


def policy(bench: Bench, **values: int) -> None:
    for name, number in values.items():
        bench.connection.execute(
            f"UPDATE graphwright.tenants SET {name} = %s WHERE tenant = %s",  # type: ignore
            (number, TENANT),
        )


def trigger(customer: str = "none", **more: Any) -> Trigger:
    return Trigger({"customer": customer}, {"type": "rest"}, "tester", **more)


def start(bench: Bench, name: str, *triggers: Trigger) -> list[RunId]:
    """The runs, each triggered when the one before is accepted."""

    async def work(pool: AsyncPool) -> list[RunId]:
        creator = RunCreator(
            pool, TenantPool(pool), bench.storage, Compiler(bench.runtime), bench.runtime
        )
        return [(await creator.start(TENANT, name, each)).run_id for each in triggers]

    return bench.with_pool(work)


def most_at_once(rows: Sequence[dict[str, Any]]) -> int:
    """How many of these runs were under way at once, by their own records."""
    changes = [(row["started_at"], 1) for row in rows] + [(row["ended_at"], -1) for row in rows]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def ended(bench: Bench, runs: Sequence[RunId]) -> list[dict[str, Any]]:
    rows = [bench.wait_for(run_id) for run_id in runs]
    assert {row["status"] for row in rows} == {"succeeded"}
    return rows


def waits(bench: Bench, run_id: RunId) -> str | None:
    """What the run waits for on the queue."""
    row = bench.connection.execute(
        "SELECT state FROM graphwright.run_queue WHERE run_id = %s", (run_id,)
    ).fetchone()
    return None if row is None else row["state"]


def test_limits_hold_while_two_apis_and_two_workers_race(bench: Bench) -> None:
    """One limit each of the tenant, a graph and a key; every run takes part in the first."""
    bench.publish(sleeper("free"))
    bench.publish(sleeper("one-graph", limit=2))
    bench.publish(sleeper("by-key", key=KEYED, limit=1))
    policy(bench, max_running=4)
    asked = [
        (("free", "one-graph", "by-key", "by-key")[n % 4], trigger(f"c{n // 4 % 3}"))
        for n in range(RUNS)
    ]

    async def api(mine: list[tuple[str, Trigger]]) -> list[tuple[str, str, RunId]]:
        storage = GraphwrightStorage(bench.settings.database_url, bench.settings.redis_url)
        async with async_pool(bench.settings.database_url, size=4) as pool:
            creator = RunCreator(
                pool, TenantPool(pool), storage, Compiler(bench.runtime), bench.runtime
            )
            started = await asyncio.gather(*(creator.start(TENANT, *each) for each in mine))
            await creator.close()
        storage.event_log_storage.dispose()
        return [
            (name, str(each.params["customer"]), run.run_id)
            for (name, each), run in zip(mine, started, strict=True)
        ]

    with bench.worker(), bench.worker(), ThreadPoolExecutor(2) as apis:
        both = [apis.submit(asyncio.run, api(asked[number::2])) for number in (0, 1)]
        made = [each for one in both for each in one.result()]
        rows = dict(zip(made, ended(bench, [run_id for *_, run_id in made]), strict=True))
    assert most_at_once(list(rows.values())) <= 4
    assert most_at_once([row for made, row in rows.items() if made[0] == "one-graph"]) <= 2
    for customer in ("c0", "c1", "c2"):
        of_key = [row for made, row in rows.items() if made[:2] == ("by-key", customer)]
        assert of_key
        assert most_at_once(of_key) == 1
    left = bench.connection.execute("SELECT FROM graphwright.run_queue").fetchall()
    assert not left


@contextmanager
def gate() -> Generator[Gate]:
    with Gate() as opened:
        yield opened


def gated(opened: Gate, **concurrency: Any) -> dict[str, Any]:
    return graph({"ask": opened.node}, params=PARAMS, concurrency=concurrency)


@pytest.mark.parametrize("status", [200, 500])
def test_the_end_of_a_run_lets_the_next_one_in(bench: Bench, status: int) -> None:
    settings = bench.settings
    bench.settings = settings.model_copy(update={"http_private": True})
    with gate() as opened:
        bench.publish(gated(opened, limit=1, key=KEYED))
        first, second, other = start(bench, "tested", trigger("a"), trigger("a"), trigger("b"))
        with bench.worker():
            opened.asked(2)
            assert waits(bench, second) == "blocked"
            assert bench.row(other)["status"] == "running"
            opened.answer(status)
            opened.answer(status)
            expected = "succeeded" if status == 200 else "failed"
            assert bench.wait_for(first)["status"] == expected
            opened.asked(3)
            opened.answer(200)
            assert bench.wait_for(second)["status"] == "succeeded"


@pytest.mark.parametrize("limit", ["graph", "tenant"])
@pytest.mark.parametrize("held", [False, True])
def test_a_cancel_lets_the_next_one_in(bench: Bench, limit: str, held: bool) -> None:
    """Whether the run is with a worker or on the queue when it is cancelled."""
    rule: dict[str, Any] = {"limit": 1} if limit == "graph" else {}
    bench.publish(sleeper("tested", 60, **rule))
    if limit == "tenant":
        policy(bench, max_running=1)
    first, second = start(bench, "tested", trigger(), trigger())
    assert waits(bench, first) == "ready"
    assert waits(bench, second) == ("blocked" if limit == "graph" else "limited")
    writer = bench.storage.writer

    def cancel_it(run_id: RunId) -> None:
        cancel(bench.connection, writer, TENANT, run_id)
        assert bench.wait_for(run_id)["status"] == "cancelled"

    if held:
        with bench.worker(leave_seconds=3_600):
            bench.wait_for(first, "running")
            assert waits(bench, second) is not None
            cancel_it(first)
            bench.wait_for(second, "running")
            cancel_it(second)
    else:
        cancel_it(first)
        assert waits(bench, second) == "ready"


def test_one_that_is_not_let_in_by_the_key_is_not_let_in_by_the_tenant(bench: Bench) -> None:
    """Nor does it take one of the tenant's places meanwhile."""
    bench.publish(sleeper("keyed", limit=1))
    bench.publish(sleeper("free"))
    policy(bench, max_running=2)
    first, second = start(bench, "keyed", trigger(), trigger())
    third, fourth = start(bench, "free", trigger(), trigger())
    states = [waits(bench, run_id) for run_id in (first, second, third, fourth)]
    assert states == ["ready", "blocked", "ready", "limited"]


def test_reject_refuses_a_run_beside_another(bench: Bench) -> None:
    bench.publish(sleeper(seconds=60, key=KEYED, limit=1, on_conflict="reject"))
    (first,) = start(bench, "tested", trigger("a"))
    with pytest.raises(ConcurrencyConflict) as refused:
        start(bench, "tested", trigger("a"))
    assert refused.value.hint
    (other,) = start(bench, "tested", trigger("b"))
    cancel(bench.connection, bench.storage.writer, TENANT, first)
    (again,) = start(bench, "tested", trigger("a"))
    count = bench.connection.execute("SELECT count(*) AS n FROM graphwright.runs").fetchone()
    assert count == {"n": 3}
    assert {waits(bench, run_id) for run_id in (other, again)} == {"ready"}


def test_reject_takes_as_many_as_fit_when_they_come_at_once(bench: Bench) -> None:
    bench.publish(sleeper(limit=2, on_conflict="reject"))

    async def work(pool: AsyncPool) -> list[Any]:
        creators = [
            RunCreator(
                pool, TenantPool(pool), bench.storage, Compiler(bench.runtime), bench.runtime
            )
            for _ in range(2)
        ]
        runs = (creators[n % 2].start(TENANT, "tested", trigger()) for n in range(20))
        return await asyncio.gather(*runs, return_exceptions=True)

    found = bench.with_pool(work)
    assert sum(isinstance(each, ConcurrencyConflict) for each in found) == 18


def test_cancel_running_ends_those_before(bench: Bench) -> None:
    bench.publish(sleeper(seconds=60, key=KEYED, limit=2, on_conflict="cancel_running"))
    with bench.worker(leave_seconds=3_600):
        first, second = start(bench, "tested", trigger("a"), trigger("a"))
        (other,) = start(bench, "tested", trigger("b"))
        for run_id in (first, second, other):
            bench.wait_for(run_id, "running")
        (third,) = start(bench, "tested", trigger("a"))
        assert bench.wait_for(first)["status"] == "cancelled"
        bench.wait_for(third, "running")
        assert bench.row(second)["status"] == bench.row(other)["status"] == "running"
        writer = bench.storage.writer
        for run_id in (second, third, other):
            cancel(bench.connection, writer, TENANT, run_id)


def test_a_key_that_cannot_be_evaluated_refuses_the_run(bench: Bench) -> None:
    document = sleeper(key="${{ params.missing.deeper }}", limit=1)
    bench.publish({**document, "params": {"type": "object"}})
    with pytest.raises(Invalid) as refused:
        start(bench, "tested", trigger())
    assert refused.value.faults[0].code == "no_concurrency_key"


def test_any_key_makes_a_slot(bench: Bench) -> None:
    """Of whatever length and type; other keys are other slots."""
    schema = {"type": "object"}
    bench.publish({**sleeper(key=KEYED, limit=1), "params": schema})
    keys: list[Any] = ["", "x" * 10_000, "x" * 10_001, "é", "1", 1.5, True, None, [1], {"a": 1}]
    asked = [Trigger({"customer": key}, {"type": "rest"}, "tester") for key in keys]
    runs = start(bench, "tested", *asked, *asked)
    states = [waits(bench, run_id) for run_id in runs]
    assert states == ["ready"] * len(keys) + ["blocked"] * len(keys)


def test_quotas_refuse_with_a_clear_error(bench: Bench) -> None:
    bench.publish(sleeper())
    policy(bench, max_queued=2)
    start(bench, "tested", trigger(), trigger())
    with pytest.raises(QuotaExceeded, match="queued") as refused:
        start(bench, "tested", trigger())
    assert refused.value.hint
    with bench.worker():
        left = "SELECT FROM graphwright.run_queue"
        while bench.connection.execute(left).fetchall():
            pass
    start(bench, "tested", trigger())
    before_midnight()
    policy(bench, max_queued=100, max_runs_per_day=2)
    start(bench, "tested", trigger(), trigger())
    with pytest.raises(QuotaExceeded, match="day") as refused:
        start(bench, "tested", trigger())
    assert refused.value.hint
    count = bench.connection.execute("SELECT count(*) AS n FROM graphwright.runs").fetchone()
    assert count == {"n": 5}


def test_a_batch_stays_within_its_quota(bench: Bench) -> None:
    bench.publish(sleeper())
    before_midnight()
    policy(bench, max_runs_per_day=7)

    async def work(pool: AsyncPool) -> list[Any]:
        creator = RunCreator(
            pool, TenantPool(pool), bench.storage, Compiler(bench.runtime), bench.runtime
        )
        runs = (creator.start(TENANT, "tested", trigger()) for _ in range(20))
        return await asyncio.gather(*runs, return_exceptions=True)

    found = bench.with_pool(work)
    assert sum(isinstance(each, QuotaExceeded) for each in found) == 13
