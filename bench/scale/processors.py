"""Seconds of processors that the roles have used so far."""

from collections.abc import Sequence
from typing import Any

import psutil
import redis

from bench.engines.roles import Roles
from bench.support.services import Services
from foundation.database import Connection


def used(roles: Roles, servers: Services, database: Connection) -> dict[str, float]:
    """By role: api, worker, postgres, valkey."""
    row = database.execute("SELECT pg_backend_pid() AS pid").fetchone()
    assert row is not None
    postmaster = psutil.Process(row["pid"]).parent()
    assert postmaster is not None
    valkey = redis.Redis.from_url(servers.valkey(0))
    told: Any = valkey.info("cpu")
    valkey.close()
    return {
        "api": _seconds(psutil.Process(roles.pid("api"))),
        "worker": _seconds(psutil.Process(roles.pid("worker"))),
        "postgres": _seconds(postmaster),
        "valkey": told["used_cpu_user"] + told["used_cpu_sys"],
    }


def a_run(before: dict[str, float], after: dict[str, float], runs: int) -> dict[str, float]:
    return {role: round((after[role] - before[role]) / runs, 6) for role in before}


def least(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The round that other programs have disturbed least."""
    return min(rounds, key=lambda each: sum(each.values()))


def _seconds(process: psutil.Process) -> float:
    """Of a process and its children, those that have ended too."""
    while True:
        try:
            own = process.cpu_times()
            ended = own.children_user + own.children_system
            living = sum(sum(each.cpu_times()[:2]) for each in process.children(recursive=True))
            return own.user + own.system + ended + living
        except psutil.NoSuchProcess:
            if not process.is_running():
                raise
            # A child has ended meanwhile, and is among those now.
