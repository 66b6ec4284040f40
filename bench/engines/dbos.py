"""DBOS: durable workflows as a library, inside one process, on PostgreSQL."""

import os
from typing import Final

from bench.engines.base import Engine
from bench.engines.driver import Driver, drive
from bench.engines.peers import Setting
from bench.support.installing import python_environment

_VERSION: Final = "3.4.0"


def start(setting: Setting) -> list[Engine]:
    python = python_environment("dbos", [f"dbos=={_VERSION}"])
    environment = {**os.environ, "DATABASE_URL": setting.database()}
    how = (
        f"{_VERSION}, called in its own process (no HTTP), steps durable in PostgreSQL; many at "
        "once by `start_workflow` on its thread pool"
    )
    return [Driver("dbos", how, drive(setting.processes, "dbos", python, environment))]
