"""What runs nodes in tests of ending: threads and processes, and gates that hold processes."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynamic_jobs.compiling.prepared import PreparedNode
from dynamic_jobs.executing.node_secrets import NodeSecrets
from dynamic_jobs.executing.nodes import NodeOutput, NodeRunner
from dynamic_jobs.executing.process_pool import ProcessPool
from dynamic_jobs.platforms.running import Platforms
from foundation.ids import NodeId
from foundation.settings import Limits, Settings
from graph_defs.expressions import Evaluator, Scope
from node_types.base import NodeContext, NodePolicy, NodeType

NO_TIME, SOON = timedelta(), timedelta(milliseconds=50)
PATIENT, IMPATIENT = 20.0, 0.01
"""Seconds of grace: no test waits for the first to pass, and nothing is quicker than the second."""
NOTHING = Scope({}, {}, {}, {})


class Pieces:
    """What runs nodes: a runner with two processes and as many threads as are asked for."""

    def __init__(self, limits: Limits) -> None:
        self.evaluator = Evaluator(limits)
        self.processes = ProcessPool(2)
        self.threads: list[ThreadPoolExecutor] = []
        self._limits = limits

    def runner(self, grace: float, threads: int = 2) -> NodeRunner:
        self.threads.append(ThreadPoolExecutor(threads))
        settings = Settings()
        return NodeRunner(
            self.evaluator,
            NodeSecrets(settings),
            self.threads[-1],
            self.processes,
            Platforms(settings),
            10_000,
            grace,
        )

    def node(
        self, node_type: NodeType[Any, Any], timeout: timedelta | None = None, **given: Any
    ) -> PreparedNode:
        template = self.evaluator.compile(given)
        return PreparedNode(NodeId("one"), node_type, template, (), timeout=timeout)

    def close(self) -> None:
        self.processes.close()
        self.evaluator.close()
        for threads in self.threads:
            threads.shutdown(wait=False)  # a test that fails may leave one held


@pytest.fixture
def pieces(limits: Limits) -> Iterator[Pieces]:
    made = Pieces(limits)
    yield made
    made.close()


class Gate:
    """The other side of a `Held`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        for end in ("up", "do"):
            os.mkfifo(f"{path}.{end}")
        # For both, so that opening waits for nobody.
        self._up, self._do = (os.open(f"{path}.{end}", os.O_RDWR) for end in ("up", "do"))

    async def up(self) -> psutil.Process:
        """Its process, once it computes."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._up, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._up)
        return psutil.Process(int(os.read(self._up, 100)))

    def do(self, what: str) -> None:
        os.write(self._do, f"{what}\n".encode())

    def close(self) -> None:
        os.close(self._up)
        os.close(self._do)


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[list[Gate]]:
    made = [Gate(tmp_path / name) for name in "abc"]
    yield made
    for gate in made:
        gate.close()


def attempt(runner: NodeRunner, node: PreparedNode) -> "asyncio.Task[NodeOutput]":
    async def wait(until: datetime) -> None:
        await asyncio.sleep((until - datetime.now(UTC)).total_seconds())

    context = NodeContext(
        tenant="acme",
        run_id="r1",
        node=node.id,
        attempt=1,
        key="r1.one",
        started_at=datetime.now(UTC),
        policy=NodePolicy(),
        log=lambda level, message: None,
        materialize=lambda key, metadata: None,
        wait=wait,
    )
    return asyncio.create_task(runner.run(node, NOTHING, context))


async def turns() -> None:
    """Turns of the event loop, enough for any timer that is due."""
    for _ in range(100):
        await asyncio.sleep(0)


async def cancelled(task: "asyncio.Task[NodeOutput]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def gone(process: psutil.Process) -> None:
    await asyncio.to_thread(process.wait, 60)


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await work()

    asyncio.run(run())
