# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""DBOS: a workflow of as many steps, each recorded in PostgreSQL. ``DATABASE_URL`` is its own."""

import os
import time
from typing import Any

from answering import serve
from dbos import DBOS, DBOSConfig

config: DBOSConfig = {
    "name": "bench",
    "system_database_url": os.environ["DATABASE_URL"],
    "run_admin_server": False,
    "log_level": "WARNING",
}
DBOS(config=config)


@DBOS.step()
def transform(value: int) -> int:
    return value + 1


@DBOS.step()
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@DBOS.workflow()
def chain(kind: str, nodes: int, seconds: float) -> float:
    value = 0.0
    for _ in range(nodes):
        value = sleep(seconds) if kind == "sleep" else transform(int(value))
    return value


def run(work: dict[str, Any]) -> None:
    chain(work["kind"], work["nodes"], work["seconds"])


def at_once(work: dict[str, Any], count: int) -> None:
    started = [
        DBOS.start_workflow(chain, work["kind"], work["nodes"], work["seconds"])
        for _ in range(count)
    ]
    for handle in started:
        handle.get_result()


if __name__ == "__main__":
    DBOS.launch()
    serve(run, at_once)
