"""Runs a node as a worker does: on a loop, or by a plain call."""

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel

from node_types.base import (
    InlineNodeType,
    LoopNodeType,
    NodeContext,
    ProcessNodeType,
    ThreadNodeType,
)

O = TypeVar("O", bound=BaseModel)  # noqa: E741


def run(
    node_type: InlineNodeType[Any, O]
    | LoopNodeType[Any, O]
    | ThreadNodeType[Any, O]
    | ProcessNodeType[Any, O],
    given: BaseModel,
    context: NodeContext,
) -> O:
    if isinstance(node_type, InlineNodeType | ProcessNodeType):
        return node_type.compute(given)
    if isinstance(node_type, ThreadNodeType):
        return node_type.run_blocking(given, context)
    return asyncio.run(node_type.run(given, context))
