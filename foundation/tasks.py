"""Ending tasks of asyncio."""

import asyncio
from typing import Any, Final

_CANCEL_AGAIN_SECONDS: Final = 0.5


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended, however they end.

    More than once if need be: what waits by Python 3.11's ``asyncio.wait_for``, such as for a
    connection of a pool, goes on when its cancellation and its result come at the same moment.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
