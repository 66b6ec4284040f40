# pyright: basic
"""Plain Dagster: chains of trivial ops, with the default executor and with the in-process one."""

from dagster import Definitions, JobDefinition, graph, in_process_executor, op


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


definitions = Definitions(jobs=[*_jobs(1), *_jobs(10)])
