import itertools
from collections.abc import Callable
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
            log=lambda level, message: None,
        )

    return make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that may be read; its siblings may not."""
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder
