"""The worker pool: worker processes that are forked from a parent which has everything imported.

So a fresh worker is ready within some 50 ms instead of seconds, and shares most of its memory. The
parent has one thread, no connection and no gRPC channel when it forks.
"""

import gc
import logging
import os
import socket
import threading
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, Final

import psutil
from dagster._core.instance.ref import InstanceRef

import node_types
from dynamic_jobs.compiling.compiler import Compiler
from dynamic_jobs.executing.runtime import NodeRuntime
from dynamic_jobs.workers.prefork import START_METHOD, Prefork, StartMethod
from dynamic_jobs.workers.prefork_child import ChildLink
from dynamic_jobs.workers.solo import SoloWorker
from dynamic_jobs.workers.worker import Worker
from foundation.ids import GraphId, GraphVersionId, RunId, TenantId
from foundation.settings import Limits, Settings
from foundation.telemetry.logs import configure_logs
from foundation.telemetry.serving import listener_of
from graph_defs.catalogue import Catalogue
from graph_defs.versions import GraphVersion

_log = logging.getLogger(__name__)

_IMPORTED_LATE: Final = (
    "dagster._core.instance.factory",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.root",
    "dynamic_jobs.coordinator",
    "dynamic_jobs.launcher",
    "psycopg2.extras",
    "upath.implementations.local",
)
"""What Dagster and SQLAlchemy import only when an instance is opened."""
_SAMPLE: Final[dict[str, Any]] = {
    "apiVersion": "graphwright/v1",
    "kind": "Graph",
    "metadata": {"name": "sample"},
    "nodes": {
        "one": {"type": "data.transform", "with": {"value": 1}},
        "two": {
            "type": "data.transform",
            "needs": ["one"],
            "with": {"value": "${{ nodes.one.output + 1 }}"},
        },
    },
    "outputs": {"two": "${{ nodes.two.output }}"},
}
_GC_THRESHOLDS: Final = (50_000, 20, 20)
"""Python's default looks for garbage every 700 objects: 3% of the time of runs of 1,000 nodes."""
_MIB: Final = 2**20


def serve(settings: Settings, limits: Limits, method: StartMethod = START_METHOD) -> None:
    """Keep ``settings.worker_processes`` workers until SIGTERM or SIGINT, and wait for their runs.

    A second signal does not wait. Raises :class:`ForkUnsafe` and ``MetricsPortBusy``.
    """
    if method == "fork":
        gc.disable()  # nothing of what is imported becomes garbage
        warm(settings, limits)
        gc.collect()
        gc.freeze()  # children never look at it, so that it stays shared
    # All workers accept on it: a process beside them would have to be kept, and fed.
    metrics = listener_of(settings)
    Prefork(
        partial(_work, settings, limits, metrics),
        settings.worker_processes,
        method,
        aside=partial(_work_alone, settings, limits),
    ).run()


def warm(settings: Settings, limits: Limits) -> None:
    """Import what executing runs takes, and fill what is cached for the whole process."""
    for module in _IMPORTED_LATE:
        import_module(module)
    InstanceRef.from_dir(str(settings.state / "dagster"))
    catalogue = Catalogue.from_packages(node_types)
    version = GraphVersion(
        graph_version_id=GraphVersionId("sample"),
        graph_id=GraphId("sample"),
        tenant=TenantId("sample"),
        name="sample",
        version=1,
        fingerprint="0" * 64,
        document=_SAMPLE,
        node_types={"data.transform": catalogue["data.transform"].version},
        author="",
        created_at=datetime.now(UTC),
    )
    with NodeRuntime(settings, limits, catalogue) as runtime:
        Compiler(runtime).compile(version)


def _work(
    settings: Settings, limits: Limits, metrics: socket.socket | None, link: ChildLink
) -> None:
    _settle(settings)
    worker = PooledWorker(settings, limits, link, metrics)
    link.follow(worker.wind_down, worker.hurry, settings.drain_seconds)
    worker.run()
    logging.shutdown()
    os._exit(0)  # Python would wait for a node's thread that does not end


def _work_alone(settings: Settings, limits: Limits, work: bytes, link: ChildLink) -> None:
    """Execute one run, whose id the work is."""
    _settle(settings)
    worker = SoloWorker(settings, limits, RunId(work.decode()))
    link.follow(worker.hand_back, worker.hurry, settings.drain_seconds)
    worker.run()
    logging.shutdown()
    os._exit(0)


def _settle(settings: Settings) -> None:
    configure_logs(settings.log_format)
    gc.enable()
    gc.set_threshold(*_GC_THRESHOLDS)


class PooledWorker(Worker):
    """A worker that has itself replaced, between runs, when its memory has grown past the bound."""

    def __init__(
        self, settings: Settings, limits: Limits, link: ChildLink, metrics: socket.socket | None
    ) -> None:
        super().__init__(settings, limits, link.parent, metrics, link)
        self._parent = link
        self._process = psutil.Process()
        self._once = threading.Lock()

    def wind_down(self) -> None:
        """Claim nothing more."""
        if self._once.acquire(blocking=False):
            self.stop()

    def drain(self) -> None:
        """The whole pool is to be drained, or this process would be replaced."""
        self._parent.drain()

    def hurry(self) -> None:
        """Hand back what runs."""
        self.wind_down()
        self.stop()

    def after_run(self) -> None:
        """Leave, if too much memory is in use: no run is cut short on that account."""
        bound, used = self._settings.worker_memory_mb, self._process.memory_info().rss // _MIB
        if bound and used > bound and self._once.acquire(blocking=False):
            _log.info("%d MiB are past the bound of %d MiB: this process leaves", used, bound)
            self._parent.leave()
            self.retire()
