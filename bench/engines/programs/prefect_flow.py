# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Prefect: a flow of as many tasks, served as the deployment ``chain/bench``."""

from prefect import flow, task


@task
def transform(value: int) -> int:
    return value + 1


@flow
def chain(nodes: int = 10) -> int:
    value = 0
    for _ in range(nodes):
        value = transform(value)
    return value


if __name__ == "__main__":
    chain.serve(name="bench")
