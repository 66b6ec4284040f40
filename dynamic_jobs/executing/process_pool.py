"""Processes for nodes that compute: started when the first such node runs, and kept."""

import asyncio
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from typing import Any, ClassVar

from pydantic import BaseModel

from node_types.base import NodeError, ProcessNodeType


class ProcessLost(NodeError):
    """The process that computed the node ended: killed, for its memory for example."""

    code: ClassVar[str] = "process_lost"


class ProcessPool:
    """At most ``size`` processes. They come from a fork server: this process has threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    async def compute(self, node_type: ProcessNodeType[Any, Any], given: BaseModel) -> BaseModel:
        """The node type's output, computed in a process of the pool. Raises :class:`NodeError`."""
        for last in (False, True):
            pool = self._pool or await asyncio.to_thread(self._started)
            try:
                return await asyncio.wrap_future(pool.submit(node_type.compute, given))
            except BrokenProcessPool:
                self._forget(pool)
                if last:
                    break
                # One process took the others with it. It is a pure function: compute it again.
        raise ProcessLost(
            f"the process that computed {node_type.name} ended before it had finished, twice",
            hint="It may have needed more memory than there is; give it less to do, or retry.",
        )

    def close(self) -> None:
        """Stop the processes; what they compute is dropped."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            for process in multiprocessing.active_children():
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload(["node_types.base"])
                resource_tracker.ensure_running()  # it unblocks SIGTERM
                # SIGTERM to the whole process group is for the worker: what computes may finish.
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
                forkserver.ensure_running()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                self._pool = ProcessPoolExecutor(self._size, context, initializer=_end_with_parent)
            return self._pool

    def _forget(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is broken:
                self._pool = None
        broken.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="parent", daemon=True).start()
