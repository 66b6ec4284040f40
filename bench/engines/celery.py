"""Celery with Redis, or rather Valkey: fast, and nothing is durable."""

import os
from typing import Final

from bench.engines.base import Engine
from bench.engines.driver import Driver, drive
from bench.engines.peers import PROGRAMS, Setting
from bench.support.installing import python_environment

_VERSION: Final = "5.7.0"
_WORKERS: Final = 2
_DATABASE: Final = 1


def start(setting: Setting) -> list[Engine]:
    python = python_environment("celery", [f"celery[redis]=={_VERSION}"])
    broker = f"redis+socket://{setting.services.valkey_socket}?virtual_host={_DATABASE}"
    environment = {**os.environ, "BROKER_URL": broker, "PYTHONPATH": str(PROGRAMS)}
    options = ("worker", "--concurrency", str(_WORKERS), "--loglevel", "WARNING")
    worker = setting.processes.start(
        "celery-worker",
        (python, "-m", "celery", "-A", "celery_tasks", *options),
        environment=environment,
        cwd=setting.folder,
    )
    how = (
        f"{_VERSION}, {_WORKERS} worker processes, Valkey as broker and result backend (not "
        "durable); a `chain` sent and its result awaited by a client in Python"
    )
    return [
        Driver("celery", how, drive(setting.processes, "celery", python, environment), [worker])
    ]
