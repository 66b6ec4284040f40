import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node_types.base import NodeContext, NodePolicy

ContextFor = Callable[[NodePolicy], NodeContext]


@pytest.fixture
def context_for() -> ContextFor:
    """Makes the context of a node's first attempt under a policy."""
    numbers = itertools.count()

    def make(policy: NodePolicy) -> NodeContext:
        node = f"n{next(numbers)}"
        return NodeContext(
            tenant="default",
            run_id="run",
            node=node,
            attempt=1,
            key=f"run/{node}",
            policy=policy,
            started_at=datetime.now(UTC),
            log=lambda level, message: None,
            materialize=lambda key, metadata: None,
            wait=_wait,
        )

    return make


async def _wait(until: datetime) -> None:
    await asyncio.sleep((until - datetime.now(UTC)).total_seconds())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that may be read; its siblings may not."""
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder
