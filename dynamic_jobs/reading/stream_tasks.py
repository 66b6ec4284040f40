"""Tasks of live streams, whose clients may leave at any await."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from foundation.ids import TenantId

T = TypeVar("T")


class TurnsByTenant:
    """So many of a tenant at once; the others wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._turns = WeakValueDictionary[TenantId, asyncio.Semaphore]()

    def of(self, tenant: TenantId) -> asyncio.Semaphore:
        """To be held by ``async with``."""
        turns = self._turns.get(tenant)
        if turns is None:
            turns = self._turns[tenant] = asyncio.Semaphore(self._limit)
        return turns


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and let it go on to its end where we are cancelled.

    For what asks PostgreSQL: a query that is cut off costs another connection, which cancels it,
    and its own where that is cut off too.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(_seen)
    return await asyncio.shield(task)


def _seen(task: asyncio.Task[Any]) -> None:
    """Nobody may be left who takes the task's error; that is no news."""
    if not task.cancelled():
        task.exception()
