"""Tasks beside a worker's runs, that must go on whatever happens to them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

_log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0

Task: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Never returns of its own accord."""


@asynccontextmanager
async def upkeep(tasks: Mapping[str, Task]) -> AsyncGenerator[None]:
    """Keep these tasks going until the block ends; one that breaks is logged and started again."""
    started = [asyncio.create_task(_keep(name, task)) for name, task in tasks.items()]
    try:
        yield
    finally:
        for each in started:
            each.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def _keep(name: str, task: Task) -> None:
    while True:
        try:
            await task()
        except Exception:
            _log.exception("%s broke, and starts again", name)
        await asyncio.sleep(_AGAIN_SECONDS)
