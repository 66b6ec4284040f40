"""Processes for nodes that compute: started when the first such node runs, and kept.

Each has a pipe of its own and computes one node at a time, so that one can be killed, or die,
without the others. (``concurrent.futures`` gives up the whole pool when one process dies, and
cannot stop what runs. ``pebble`` shares one pair of pipes and their locks among all processes: one
that is killed inside takes them along; and it ends a process by SIGTERM first, which is masked
here, and waits 3 seconds.)
"""

import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from typing import Any, ClassVar, Final, TypeVar

from pydantic import BaseModel

from node_types.base import NodeError, ProcessNodeType

T = TypeVar("T")

_MASKED: Final = {signal.SIGTERM, signal.SIGINT}
"""Sent to a whole process group they are for the worker: what computes may finish."""


class ProcessLost(NodeError):
    """The process that computed the node ended: killed, for its memory for example."""

    code: ClassVar[str] = "process_lost"


class ProcessPool:
    """At most ``size`` processes. They come from a fork server: this process has threads."""

    def __init__(self, size: int) -> None:
        self._slots = asyncio.Semaphore(size)
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="processes")
        self._idle: list[_Process] = []
        self._alive: set[_Process] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._end: util.Finalize | None = None

    async def compute(
        self, node_type: ProcessNodeType[Any, Any], given: BaseModel, begun: Callable[[], object]
    ) -> BaseModel:
        """The node type's output, computed in a process of the pool.

        ``begun`` is called when a process is free for it. Cancelling kills the process.

        Raises:
            NodeError: the work cannot be done; :class:`ProcessLost` where its process ended.
        """
        async with self._slots:
            process = await self._free()
            begun()
            try:
                await self._in_thread(lambda: process.send(node_type.compute, given))
                await process.answers()
                output, error = await self._in_thread(process.receive)
            except BaseException as lost:
                self._drop(process)
                if isinstance(lost, EOFError | ConnectionError):
                    how = await self._in_thread(process.ended)
                    raise ProcessLost(
                        f"the process that computed {node_type.name} {how}",
                        hint="It may have needed more memory than there is; give it less to do, "
                        "or let the node retry.",
                    ) from lost
                raise
            self._idle.append(process)
        if error is not None:
            raise error
        return output

    def close(self) -> None:
        """Kill the processes; what they compute is dropped."""
        with self._lock:
            self._closed = True
        if self._end is not None:
            self._end()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _free(self) -> "_Process":
        while True:
            while self._idle:
                process = self._idle.pop()
                if process.is_alive:
                    return process
                self._drop(process)
            starting = asyncio.ensure_future(self._in_thread(self._start))
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await asyncio.wait([starting])  # it will be idle, and counts
                raise

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            if self._end is None:
                # Also when this process exits without a close: multiprocessing would wait for them.
                self._end = util.Finalize(self, _kill, (self._alive,), exitpriority=10)
            process = _Process()
            self._alive.add(process)
        self._idle.append(process)

    def _drop(self, process: "_Process") -> None:
        process.kill()
        self._alive.discard(process)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _Process:
    """One process of the pool, and the pipe to it.

    Dropping it closes the pipe: earlier than that a thread may still read from it.
    """

    def __init__(self) -> None:
        context = _context()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="compute")
        self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        """Of one that is idle, and so has nothing to say: its pipe is readable once it has ended.

        That is sooner than the sentinel is, for which the fork server has to notice.
        """
        return not wait([self._pipe, self._process.sentinel], 0)

    def send(self, function: Callable[[Any], BaseModel], given: BaseModel) -> None:
        """Raises ``ConnectionError`` where the process has ended."""
        self._pipe.send_bytes(pickle.dumps((function, given)))

    async def answers(self) -> None:
        """Wait until the process has begun to answer, or has ended."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        # The sentinel too, for what the process itself has forked may hold its end of the pipe.
        ends = (self._pipe.fileno(), self._process.sentinel)
        for end in ends:
            loop.add_reader(end, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            for end in ends:
                loop.remove_reader(end)

    def receive(self) -> tuple[Any, Exception | None]:
        """Its output, or its error. Raises ``EOFError`` or ``ConnectionError`` where it ended."""
        if not self._pipe.poll():
            raise EOFError
        return pickle.loads(self._pipe.recv_bytes())  # noqa: S301 - from our own process

    def kill(self) -> None:
        self._process.kill()

    def ended(self) -> str:
        """How it ended. Blocks until it has."""
        self._process.join()
        code = self._process.exitcode or 0
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with {code}"


def _kill(processes: set[_Process]) -> None:
    for process in list(processes):
        process.kill()
    for process in list(processes):
        process.ended()
    processes.clear()


def _context() -> ForkServerContext:
    """Makes sure that the fork server runs, with the signals masked that its children inherit."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["node_types.base"])
    resource_tracker.ensure_running()  # it unblocks SIGTERM
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _MASKED)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return context


def _serve(pipe: "Connection[Any, Any]") -> None:
    """The life of a process of the pool: functions in, answers out, until the pipe closes."""
    _end_with_parent()
    with suppress(EOFError, ConnectionError):
        while True:
            work = pipe.recv_bytes()
            pipe.send_bytes(_answer(work))


def _answer(work: bytes) -> bytes:
    try:
        function, given = pickle.loads(work)  # noqa: S301 - from our own process
        return pickle.dumps((function(given), None))
    except NodeError as error:
        return pickle.dumps((None, error))
    except Exception as error:
        error.add_note(f"In the process that computed it:\n{traceback.format_exc()}")
        return _failure(error)


def _failure(error: Exception) -> bytes:
    """The error as it crosses processes; some only pretend that they can."""
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)  # noqa: S301 - made in the line above
    except Exception:
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.add_note("\n".join(error.__notes__))
        return pickle.dumps((None, told))
    return answer


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="parent", daemon=True).start()
