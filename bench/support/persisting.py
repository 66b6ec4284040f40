"""A process that persists events: ``python -m bench.support.persisting ours|stock DATABASE REDIS``.

Reads ``<count> <live>`` a line and answers with the seconds that it took to store so many events,
flush included. The events are those of the steps of a real Dagster run, over and over, as objects
made beforehand; each round is a new run, which the process holds as a worker would.
"""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, LiteralString, Self
from uuid import uuid4

from bench.engines.driver import ask_line
from bench.support.processes import Processes

RUN: Final[LiteralString] = """
INSERT INTO graphwright.runs (tenant, run_id, sort_id, graph_id, graph_version_id, trigger, params,
                              status, author, live, started_at, epoch)
VALUES ('bench', %(run_id)s, %(run_id)s, %(run_id)s, %(run_id)s, '{}', '{}',
        'running', 'bench', %(live)s, now(), 1)
"""

STORED: Final[LiteralString] = "SELECT count(*) AS stored FROM event_logs WHERE run_id = %s"


class Events:
    """The process, from the outside. It starts with ``with``."""

    def __init__(self, processes: Processes, kind: str, database: str, redis: str) -> None:
        self._processes = processes
        command = (sys.executable, "-m", "bench.support.persisting", kind, database, redis)
        self._child = processes.start(f"events-{kind}", command, pipes=True)

    def rate(self, count: int, *, live: bool) -> float:
        """Events a second, over ``count`` of them."""
        return count / float(ask_line(self._child, f"{count} {int(live)}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._processes.end(self._child)


def _main() -> None:
    kind, database, redis = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    store = _ours(database, redis) if kind == "ours" else _stock(database)
    entries = _step_events()
    for line in sys.stdin:
        count, live = (int(part) for part in line.split())
        run_id = str(uuid4())
        now = time.time()
        given = [
            entries[number % len(entries)]._replace(run_id=run_id, timestamp=now)
            for number in range(count)
        ]
        took = store(run_id, given, bool(live))
        _check(database, run_id, count)
        answers.write(f"{took}\n")
        answers.flush()


def _check(database: str, run_id: str, count: int) -> None:
    from foundation.database import connect

    with connect(database) as connection:
        row = connection.execute(STORED, (run_id,)).fetchone()
    if row is None or row["stored"] != count:
        raise RuntimeError(f"of {count} events the log has {row}")


def _step_events() -> list[Any]:
    """The ``EventLogEntry`` objects of the steps of a chain of ten, run by stock Dagster."""
    from dagster import DagsterInstance, graph, op

    @op
    def first() -> int:
        return 1

    @op
    def transform(value: int) -> int:
        return value + 1

    @graph
    def chain() -> None:
        value = first()
        for number in range(2, 11):
            value = transform.alias(f"n{number}")(value)

    with DagsterInstance.ephemeral() as instance:
        done = chain.to_job().execute_in_process(instance=instance)
        logged = instance.all_logs(done.run_id)
    return [
        entry
        for entry in logged
        if entry.dagster_event is not None and entry.dagster_event.step_key is not None
    ]


def _ours(database: str, redis: str) -> Callable[[str, list[Any], bool], float]:
    from dynamic_jobs.storage import GraphwrightStorage, Lease
    from foundation.database import connect, migrate
    from foundation.ids import RunId, TenantId

    migrate(database)
    storage = GraphwrightStorage(database, redis)
    connection = connect(database)

    def store(run_id: str, entries: list[Any], live: bool) -> float:
        connection.execute(RUN, {"run_id": run_id, "live": live})
        lease = Lease(TenantId("bench"), RunId(run_id), 1)
        storage.writer.hold(lease)
        began = time.perf_counter()
        for entry in entries:
            storage.event_log_storage.store_event(entry)
        storage.writer.flush(RunId(run_id))
        took = time.perf_counter() - began
        storage.writer.release(lease)
        return took

    return store


def _stock(database: str) -> Callable[[str, list[Any], bool], float]:
    from dagster_postgres import PostgresEventLogStorage

    storage = PostgresEventLogStorage(database, should_autocreate_tables=True)

    def store(_run_id: str, entries: list[Any], _live: bool) -> float:
        began = time.perf_counter()
        for entry in entries:
            storage.store_event(entry)
        return time.perf_counter() - began

    return store


if __name__ == "__main__":
    _main()
