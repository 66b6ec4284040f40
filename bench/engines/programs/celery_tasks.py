# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Celery's tasks; ``BROKER_URL`` is both broker and result backend."""

import os
import time

from celery import Celery

app = Celery("celery_tasks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
app.conf.worker_prefetch_multiplier = 1


@app.task
def transform(value: int) -> int:
    return value + 1


@app.task
def sleep(_before: float, seconds: float) -> float:
    time.sleep(seconds)
    return seconds
