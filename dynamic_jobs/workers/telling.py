"""What a worker tells its operator of itself: whether it is well, and how much it has to do."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from foundation.database import Pool
from foundation.settings import Settings
from foundation.telemetry import health
from foundation.telemetry.metrics import WORKER_RUNS, sample_pool
from foundation.telemetry.serving import serving

_SAMPLE_SECONDS: Final = 5.0
"""Whoever reads metrics may ask another process of the pool, which reads these from a file."""


def telling(
    settings: Settings, metrics: socket.socket | None, beaten_at: Callable[[], float]
) -> AbstractContextManager[None]:
    """Answer probes and scrapes on ``metrics`` while the block runs, on the worker's event loop.

    ``beaten_at``: when the worker last kept its lease, by ``time.monotonic``.
    """
    lease = health.recently("lease", beaten_at, settings.lease_seconds)
    return serving(
        metrics,
        alive=[health.event_loop(asyncio.get_running_loop())],
        ready=[lease, health.database(settings), health.redis_server(settings)],
    )


async def sample(runs: Callable[[], tuple[int, int]], connections: Pool) -> None:
    """Keep the gauges, until cancelled. ``runs`` gives how many wait and how many are executed."""
    while True:
        waiting, executing = runs()
        WORKER_RUNS.labels("waiting").set(waiting)
        WORKER_RUNS.labels("executing").set(executing)
        sample_pool("worker", connections)
        await asyncio.sleep(_SAMPLE_SECONDS)
