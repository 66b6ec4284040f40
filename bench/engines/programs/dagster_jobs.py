# pyright: basic
"""Plain Dagster: chains of trivial ops, with the default executor and with the in-process one; and
a sensor that starts a run for each file of a folder, as its documentation has it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from dagster import (
    Definitions,
    JobDefinition,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    graph,
    in_process_executor,
    op,
)


@op
def first() -> int:
    return 1


@op
def transform(value: int) -> int:
    return value + 1


def _jobs(nodes: int) -> list[JobDefinition]:
    @graph(name=f"transform_{nodes}")
    def chain():
        value = first()
        for number in range(2, nodes + 1):
            value = transform.alias(f"n{number}")(value)

    name = f"transform_{nodes}_in_process"
    return [chain.to_job(), chain.to_job(name=name, executor_def=in_process_executor)]


def _new_files(_context: SensorEvaluationContext) -> Iterator[RunRequest]:
    for path in Path(os.environ["BENCH_DROPPED"]).iterdir():
        yield RunRequest(run_key=path.name)


JOBS = [*_jobs(1), *_jobs(10)]
SENSORS = [
    SensorDefinition(
        name=f"sensor_of_{job.name}",
        job=job,
        evaluation_fn=_new_files,
        minimum_interval_seconds=1,  # the daemon itself looks each 5 s
    )
    for job in JOBS[:2]
]

definitions = Definitions(jobs=JOBS, sensors=SENSORS)
