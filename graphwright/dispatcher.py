"""The dispatcher: starts runs the moment that a webhook is called or a timer is due.

Any number of these processes may run, and be killed at any moment: what they do is one transaction
each time, and what waits is claimed in the database.
"""

import asyncio
import logging
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import Final

import psycopg
from prometheus_client import REGISTRY
from psycopg.sql import SQL, Identifier
from psycopg_pool import PoolTimeout

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.queueing.depth import QueueDepth
from dynamic_jobs.queueing.waking import DISPATCH_CHANNEL
from foundation.database import async_connect
from foundation.garbage import collect_seldom
from foundation.settings import Limits, Settings
from foundation.telemetry import health
from foundation.telemetry.serving import listener_of, serving
from foundation.telemetry.tracing import tracing
from graph_defs.catalogue import Catalogue
from graphwright.dispatch import Lane, open_lanes

_log = logging.getLogger(__name__)

_THREADS: Final = 128
_AGAIN_SECONDS: Final = 1.0


async def run(settings: Settings) -> None:
    """Dispatch until SIGTERM or SIGINT; what is under way then is finished."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # By default there are six on two cores, and whoever calls URLs looks names up in them.
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="dispatch")
    loop.set_default_executor(threads)
    catalogue = Catalogue.from_packages(node_types)
    async with AsyncExitStack() as stack:
        traced = stack.enter_context(tracing(settings, "dispatcher"))
        runtime = stack.enter_context(NodeRuntime(settings, Limits(), catalogue, traced))
        compiler = Compiler(runtime)
        shards = range(settings.shards)
        opened = await stack.enter_async_context(open_lanes(runtime, compiler, shards))
        lanes = [lane for each in opened for lane in each.all]
        REGISTRY.register(QueueDepth(settings.database_url))
        stack.enter_context(
            serving(
                listener_of(settings),
                alive=[health.event_loop(loop)],
                ready=[health.database(settings), health.redis_server(settings)],
            )
        )
        collect_seldom()
        _log.info("dispatching")
        await Dispatcher(settings.database_url, lanes, stopping).run()


class Dispatcher:
    """Keeps lanes going: when it is told of something, and every few seconds."""

    def __init__(self, database_url: str, lanes: Sequence[Lane], stopping: asyncio.Event) -> None:
        self._database_url = database_url
        self._lanes = [(lane, asyncio.Event()) for lane in lanes]
        self._stopping = stopping

    async def run(self) -> None:
        """Dispatch until ``stopping`` is set."""
        listening = asyncio.create_task(self._listen())
        lanes = [asyncio.create_task(self._keep(lane, wake)) for lane, wake in self._lanes]
        await self._stopping.wait()
        self._wake()
        await asyncio.gather(*lanes)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    def _wake(self, message: str = "") -> None:
        for lane, wake in self._lanes:
            if message in {"", lane.wakes_on}:
                wake.set()

    async def _keep(self, lane: Lane, wake: asyncio.Event) -> None:
        while not self._stopping.is_set():
            wake.clear()
            wait = lane.poll_seconds
            try:
                wait = await self._drain(lane)
            except (psycopg.OperationalError, PoolTimeout) as error:
                _log.warning("%s: the database is away: %s", lane.name, error)
            except Exception:
                _log.exception("%s cannot be dispatched, and are tried again", lane.name)
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), wait)

    async def _drain(self, lane: Lane) -> float:
        """Do all that there is to do; the seconds to wait for more."""
        for _ in range(2):
            while await lane.dispatch() and not self._stopping.is_set():
                pass
            next_at = None if lane.next_at is None else await lane.next_at()
            if next_at is None:
                break
            wait = (next_at - datetime.now(UTC)).total_seconds()
            if wait > 0:
                return min(wait, lane.poll_seconds)
            # It has come due meanwhile. Or its schedule is switched off.
        return lane.poll_seconds

    async def _listen(self) -> None:
        while True:
            try:
                async with await async_connect(self._database_url) as connection:
                    await connection.execute(SQL("LISTEN {}").format(Identifier(DISPATCH_CHANNEL)))
                    self._wake()
                    async for notification in connection.notifies():
                        self._wake(notification.payload)
            except psycopg.Error as error:
                _log.warning("not listening, polling instead: %s", error)
            await asyncio.sleep(_AGAIN_SECONDS)
