"""What a process needs to run nodes: an event loop, threads, expressions, the operator's policy."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from dynamic_jobs.active import ActiveRun
from dynamic_jobs.nodes import NodeRunner
from foundation.ids import RunId
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graph_defs.expressions import Evaluator
from node_types.base import NodePolicy

T = TypeVar("T")


class NodeRuntime:
    """One per process. Loop and threads start on first use, so a parent may fork before that."""

    def __init__(self, settings: Settings, limits: Limits, catalogue: Catalogue) -> None:
        self.settings = settings
        self.limits = limits
        self.catalogue = catalogue
        self.evaluator = Evaluator(limits)
        self.policy = NodePolicy(file_roots=settings.file_roots, http_private=settings.http_private)
        self._threads = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="node")
        self.runner = NodeRunner(self.evaluator, self._threads, limits.max_output_bytes)
        self.active: dict[RunId, ActiveRun] = {}
        """The runs that a worker executes in this process."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the process's event loop. Cancelling the future cancels it there."""
        return asyncio.run_coroutine_threadsafe(work, self._running_loop())

    def close(self) -> None:
        """Stop the loop and the threads; what still runs is cancelled."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.evaluator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=_serve, args=(self._loop,), name="nodes", daemon=True
                ).start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
