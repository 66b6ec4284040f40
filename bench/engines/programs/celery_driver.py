# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Celery's client: chains of tasks, and waiting for the result of the last."""

from typing import Any

from answering import serve
from celery import chain
from celery_tasks import sleep, transform

_PATIENCE_SECONDS = 120


def _chain(work: dict[str, Any]) -> Any:
    if work["kind"] == "sleep":
        tasks = [sleep.s(work["seconds"]) for _ in range(work["nodes"] - 1)]
        return chain(sleep.s(0.0, work["seconds"]), *tasks)
    return chain(transform.s(0), *(transform.s() for _ in range(work["nodes"] - 1)))


def run(work: dict[str, Any]) -> None:
    _chain(work).apply_async().get(timeout=_PATIENCE_SECONDS)


def at_once(work: dict[str, Any], count: int) -> None:
    for result in [_chain(work).apply_async() for _ in range(count)]:
        result.get(timeout=_PATIENCE_SECONDS)


if __name__ == "__main__":
    serve(run, at_once)
