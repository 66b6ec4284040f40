"""Runs that log: ``python -m bench.support.talking DATABASE REDIS`` writes as a worker's nodes do.

Reads ``hold RUN_ID …`` a line, and takes these runs; then ``talk SECONDS RATE``, and logs ``RATE``
lines a second on each of them, evenly spread, through the event writer. Each line says when it was
logged. Answers with how many there were.
"""

import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, LiteralString, Self

from bench.engines.driver import ask_line
from bench.support.processes import Processes

HOLD: Final[LiteralString] = """
UPDATE graphwright.runs SET epoch = 1, status = 'running', started_at = now()
WHERE tenant = 'default' AND run_id = ANY(%s)
"""


class Talkers:
    """The process, from the outside. It starts with ``with``."""

    def __init__(self, processes: Processes, database: str, redis: str) -> None:
        self._processes = processes
        command = (sys.executable, "-m", "bench.support.talking", database, redis)
        self._child = processes.start("talking", command, pipes=True)

    def hold(self, run_ids: Sequence[str]) -> None:
        """Take these runs of tenant ``default``."""
        ask_line(self._child, f"hold {' '.join(run_ids)}")

    def talk(self, seconds: float, rate: float) -> int:
        """Log ``rate`` lines a second a run; how many there were, of all runs."""
        return int(ask_line(self._child, f"talk {seconds} {rate}"))

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
    database, redis = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from dagster import EventLogEntry

    from dynamic_jobs.storage import GraphwrightStorage, Lease
    from foundation.database import connect
    from foundation.ids import RunId, TenantId

    storage = GraphwrightStorage(database, redis)
    run_ids: list[str] = []

    def say(run_id: str) -> None:
        now = time.time()
        line = EventLogEntry(None, 20, f"{time.time():.6f}", run_id, now, "talk", "job", None)
        storage.event_log_storage.store_event(line)

    for given in sys.stdin:
        command, *values = given.split()
        if command == "hold":
            run_ids = values
            with connect(database) as connection:
                connection.execute(HOLD, (run_ids,))
            for run_id in run_ids:
                storage.writer.hold(Lease(TenantId("default"), RunId(run_id), 1))
            answer = len(run_ids)
        else:
            seconds, rate = map(float, values)
            answer = int(seconds * rate * len(run_ids))
            began = time.monotonic()
            for number in range(answer):
                due = began + number / (rate * len(run_ids))
                time.sleep(max(0.0, due - time.monotonic()))
                say(run_ids[number % len(run_ids)])
            storage.writer.flush()
        answers.write(f"{answer}\n")
        answers.flush()


if __name__ == "__main__":
    _main()
