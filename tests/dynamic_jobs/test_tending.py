"""What a worker does for all, where PostgreSQL is slow, its clock jumps, or a lock is held.

The tender alone, without the worker around it, on a real PostgreSQL.
"""

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from threading import Event
from urllib.parse import quote

from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.queueing.leases import HEARTBEAT
from dynamic_jobs.workers.solo_runs import SoloRuns
from dynamic_jobs.workers.tending import Tender
from dynamic_jobs.workers.upkeep import upkeep
from dynamic_jobs.workers.worker import SET_IDLE
from foundation.database import Connection, connect
from foundation.ids import RunId, TenantId, new_id
from tests.dynamic_jobs.conftest import Bench, graph, value
from tests.dynamic_jobs.test_queue_review import HELD_FOR_EVER


@dataclass
class Tended:
    """A worker that holds nothing."""

    worker: str = field(default_factory=new_id)
    woken: Event = field(default_factory=Event)
    """Set when it has queued something that workers may take."""
    looks: SimpleQueue[None] = field(default_factory=SimpleQueue[None])
    """Two a round, once it is judged who is dead."""
    beside: Callable[[], None] = lambda: None
    """What others do at each look. However slow a process is, it is as often as that."""

    def held(self) -> dict[RunId, tuple[TenantId, int]]:
        self.beside()
        self.looks.put(None)
        return {}

    def look_round(self) -> None:
        """Wait for a round that begins from now on."""
        while not self.looks.empty():
            self.looks.get()
        for _ in range(4):
            self.looks.get(timeout=60)


@contextmanager
def tending(
    runtime: NodeRuntime,
    url: str,
    lease_seconds: float,
    beside: Callable[[], None] = lambda: None,
) -> Generator[Tended]:
    tended, enough = Tended(beside=beside), asyncio.Event()
    tender = Tender(
        url,
        tended.worker,
        1,
        lease_seconds,
        held=tended.held,
        lose=lambda _run, _epoch: None,
        heed=lambda _request: None,
        wake=tended.woken.set,
        drain=lambda: None,
        solo=SoloRuns(None, 0),
    )

    async def tend() -> None:
        async with upkeep({"the tending": tender.run}):
            await enough.wait()

    async def stop() -> None:
        enough.set()

    tends = runtime.submit(tend())
    try:
        yield tended
    finally:
        runtime.submit(stop()).result()
        tends.result()


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def held_by(bench: Bench, worker: str) -> RunId:
    """A run that this worker executes, whose last heartbeat was just now."""
    version = bench.publish(graph({"one": value(1)}))
    run_id = bench.start(version, not_before=datetime.now(UTC) + timedelta(days=1))
    with bench.connection.transaction():
        bench.connection.execute("DELETE FROM graphwright.run_queue WHERE run_id = %s", (run_id,))
        bench.connection.execute(
            "UPDATE graphwright.runs SET worker = %s, epoch = 1 WHERE run_id = %s",
            (worker, run_id),
        )
        say_it_lives(bench.connection, worker)
    return run_id


def held_by_a_dead_worker(bench: Bench) -> RunId:
    worker = new_id()
    with bench.connection.transaction():
        run_id = held_by(bench, worker)
        bench.connection.execute(
            "UPDATE graphwright.workers SET seen_at = '2020-01-01' WHERE worker = %s", (worker,)
        )
    return run_id


def say_it_lives(connection: Connection, worker: str) -> None:
    connection.execute(HEARTBEAT, {"worker": worker, "host": "there", "pid": 1, "pool": 1})


def wait_for_places(bench: Bench, tenants: int, places: int) -> None:
    """A run of each of so many tenants waits for one of so many places."""
    for number in range(tenants):
        bench.connection.execute(
            "INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state, slot, slot_limit)"
            " VALUES (%s, %s, %s, 'blocked', 'graph', %s)",
            (new_id(), f"tenant-{number:02}", new_id(), places),
        )


def ready(bench: Bench) -> set[str]:
    """The tenants whose runs may start."""
    rows = bench.connection.execute(
        "SELECT tenant FROM graphwright.run_queue WHERE state = 'ready'"
    ).fetchall()
    return {row["tenant"] for row in rows}


# Each admission cleans the slots, so it takes that long at least.
SLOW_ADMISSION = """
CREATE TABLE public.noted (id serial, what text);
CREATE FUNCTION public.admitting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep({seconds});
    INSERT INTO public.noted (what) VALUES ('admission');
    RETURN NULL;
END $$;
CREATE TRIGGER admitting BEFORE DELETE ON graphwright.run_slots
    FOR EACH STATEMENT EXECUTE FUNCTION public.admitting();
CREATE FUNCTION public.beating() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.noted (what) VALUES ('beat');
    RETURN NULL;
END $$;
CREATE TRIGGER beating AFTER UPDATE ON graphwright.workers
    FOR EACH STATEMENT EXECUTE FUNCTION public.beating();
"""


def slow_down(bench: Bench, seconds: float) -> None:
    bench.connection.execute(SLOW_ADMISSION.format(seconds=seconds).encode())


def test_the_dead_are_found_however_long_admissions_take(bench: Bench) -> None:
    """All of them together take longer than the gap that would count as an outage."""
    run_id = held_by_a_dead_worker(bench)
    wait_for_places(bench, tenants=40, places=0)
    slow_down(bench, 0.1)
    with tending(bench.runtime, bench.settings.database_url, 3.0) as tended:
        assert tended.woken.wait(60)
        row = bench.row(run_id)
        assert (row["worker"], row["strikes"]) == (None, 1)


def test_the_heart_does_not_wait_for_all_who_wait(bench: Bench) -> None:
    """And all have their turn nevertheless."""
    wait_for_places(bench, tenants=8, places=1)
    bench.connection.execute(
        "INSERT INTO graphwright.run_queue (run_id, tenant, graph_id, state)"
        " SELECT gen_random_uuid(), 'held', gen_random_uuid(), 'held' FROM generate_series(1, 8)"
    )
    slow_down(bench, 0.3)
    with tending(bench.runtime, bench.settings.database_url, 2.0):
        until(lambda: len(ready(bench)) == 9)
        until(lambda: noted(bench).count(".") >= 16)
    # A heartbeat is due after 0.5 s: two admissions, and one for a graph that was resumed.
    assert max(map(len, noted(bench).split())) <= 3


def noted(bench: Bench) -> str:
    """In order, a dot for each admission and a space for each heartbeat."""
    rows = bench.connection.execute("SELECT what FROM public.noted ORDER BY id").fetchall()
    return "".join("." if row["what"] == "admission" else " " for row in rows)


def test_a_tenant_whose_places_are_locked_holds_up_no_other(bench: Bench) -> None:
    wait_for_places(bench, tenants=5, places=1)
    with connect(bench.settings.database_url) as stuck:
        with stuck.transaction():
            stuck.execute(HELD_FOR_EVER, ("tenant-02",))
            with tending(bench.runtime, bench.settings.database_url, 1.0):
                until(lambda: len(ready(bench)) == 4)
        assert "tenant-02" not in ready(bench)


def test_workers_begin_with_different_tenants(bench: Bench) -> None:
    """They would wait for each other. That five begin with the same is one chance in millions."""
    wait_for_places(bench, tenants=50, places=1)
    slow_down(bench, 0.3)
    first: set[str] = set()
    for _ in range(5):
        with tending(bench.runtime, bench.settings.database_url, 0.5):
            until(lambda: bool(ready(bench)))
            first.add(min(ready(bench)))
        bench.connection.execute("UPDATE graphwright.run_queue SET state = 'blocked'")
        bench.connection.execute("TRUNCATE graphwright.run_slots")
    assert len(first) > 1


# Found before pg_catalog's own by whoever names this schema first.
CLOCK = """
CREATE SCHEMA moved;
CREATE TABLE moved.clock (ahead interval);
INSERT INTO moved.clock VALUES ('0');
CREATE FUNCTION moved.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.now() + ahead FROM moved.clock';
"""


def on_the_moved_clock(url: str) -> str:
    options = "-csearch_path=public -csearch_path=moved,pg_catalog,public"
    return f"{url}{'&' if '?' in url else '?'}options={quote(options)}"


def test_nobody_is_dead_because_the_clock_jumped(bench: Bench) -> None:
    """A machine was suspended, say: our own clock stood still, and PostgreSQL's is an hour on."""
    bench.connection.execute(CLOCK)
    url = on_the_moved_clock(bench.settings.database_url)
    living = new_id()
    run_id, lost = held_by(bench, living), held_by_a_dead_worker(bench)
    with (
        connect(url) as connection,
        connect(url) as other,
        tending(bench.runtime, url, 2.0, lambda: say_it_lives(other, living)) as tended,
    ):
        until(tended.woken.is_set)  # so it judges by now
        assert bench.row(lost)["worker"] is None
        with connection.transaction():
            connection.execute("UPDATE moved.clock SET ahead = '1 hour'")
            connection.execute(SET_IDLE, (tended.worker,))
        tended.look_round()
        tended.woken.clear()
        lost = held_by_a_dead_worker(bench)
        until(tended.woken.is_set)
        assert bench.row(lost)["worker"] is None
        row = bench.row(run_id)
        assert (str(row["worker"]), row["epoch"]) == (living, 1)
