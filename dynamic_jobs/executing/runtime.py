"""What a process needs to run nodes: an event loop, threads, expressions, the operator's policy."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from dynamic_jobs.executing.active import ActiveRun
from dynamic_jobs.executing.node_secrets import NodeSecrets
from dynamic_jobs.executing.nodes import NodeOutput, NodeRunner
from dynamic_jobs.executing.outputs import LargeOutput, OutputStore
from dynamic_jobs.executing.process_pool import ProcessPool
from dynamic_jobs.platforms.running import Platforms
from dynamic_jobs.storage import EventWriter
from foundation.ids import NodeId, RunId, TenantId
from foundation.object_store import object_store
from foundation.settings import Limits, Settings
from graph_defs.catalogue import Catalogue
from graph_defs.expressions import Evaluator
from node_types.base import NodePolicy

if TYPE_CHECKING:
    from foundation.telemetry.otlp import Tracing

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class NodeTask(Protocol[R_co]):
    """Work on the event loop, as one sees it from there or from another thread."""

    def done(self) -> bool: ...
    def result(self) -> R_co: ...
    def cancel(self) -> bool: ...
    def add_done_callback(self, fn: Callable[[Any], object], /) -> None: ...


class NodeRuntime:
    """One per process. Loop and threads start on first use, so a parent may fork before that."""

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        catalogue: Catalogue,
        tracing: "Tracing | None" = None,
    ) -> None:
        self.settings = settings
        self.tracing = tracing
        """Where the process's spans go, if anywhere."""
        self.limits = limits
        self.catalogue = catalogue
        self.evaluator = Evaluator(limits)
        self.policy = NodePolicy(file_roots=settings.file_roots, http_private=settings.http_private)
        self._threads = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="node")
        self._processes = ProcessPool(settings.worker_cpus)
        self._secrets = NodeSecrets(settings)
        self._platforms = Platforms(settings)
        self.runner = NodeRunner(
            self.evaluator,
            self._secrets,
            self._threads,
            self._processes,
            self._platforms,
            limits.max_output_bytes,
            settings.cancel_grace_seconds,
        )
        self.outputs = OutputStore(object_store(settings.objects_url), settings.inline_output_bytes)
        self.active: dict[RunId, ActiveRun] = {}
        """The runs that a worker executes in this process."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: int | None = None
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, T]) -> NodeTask[T]:
        """Start a coroutine on the process's event loop.

        Cancelling the task cancels it there. ``result()`` waits for it, except on the loop itself.
        """
        loop = self._running_loop()
        if threading.get_ident() == self._loop_thread:
            return loop.create_task(work)
        return asyncio.run_coroutine_threadsafe(work, loop)

    async def committed(self, writer: EventWriter, run_id: RunId) -> None:
        """Wait until all that was appended for the run so far is committed.

        Raises what :meth:`EventWriter.flush` raises.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if error is not None and not done.done():
                done.set_exception(error)
            elif not done.done():
                done.set_result(None)

        def tell(error: Exception | None) -> None:
            loop.call_soon_threadsafe(settle, error)

        writer.when_committed(run_id, tell)
        await done

    async def keep(
        self, tenant: TenantId, run_id: RunId, node: NodeId, output: NodeOutput
    ) -> LargeOutput:
        """Put a large output into the object store, in a thread. Raises ``OutputNotStored``."""
        ref = await asyncio.get_running_loop().run_in_executor(
            self._threads, self.outputs.put, tenant, run_id, node, output.text
        )
        return LargeOutput(output.value, output.text, output.size, ref)

    def close(self) -> None:
        """Stop the loop and the threads; what still runs is cancelled."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            grace = self.settings.cancel_grace_seconds
            asyncio.run_coroutine_threadsafe(self._secrets.disconnect(), loop).result()
            asyncio.run_coroutine_threadsafe(_cancel_all(grace), loop).result()
            loop.call_soon_threadsafe(loop.stop)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._platforms.close()
        self._processes.close()
        self._secrets.close()
        self.evaluator.close()
        self.outputs.close()

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
                thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="nodes", daemon=True
                )
                thread.start()
                self._loop_thread = thread.ident
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


async def _cancel_all(grace_seconds: float) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    ended = asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait([ended], timeout=grace_seconds)  # a node may refuse to
