"""Telling those who follow all runs of a tenant that there are new ones."""

import asyncio
from collections.abc import Collection
from typing import Final

from dynamic_jobs.storage.publisher import Publisher
from foundation.ids import TenantId

_REST_SECONDS: Final = 0.05


class News:
    """Tells of runs that have been committed, in the background. One per event loop.

    At once; then not again for 50 ms, since one message is enough for all runs that come meanwhile.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._tenants: set[TenantId] = set()
        self._telling: asyncio.Task[None] | None = None

    def tell(self, tenants: Collection[TenantId]) -> None:
        """These tenants have new runs."""
        self._tenants.update(tenants)
        if self._tenants and self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Wait until everything is told."""
        if self._telling is not None:
            await self._telling

    async def _tell(self) -> None:
        try:
            while self._tenants:
                tenants, self._tenants = self._tenants, set()
                await asyncio.to_thread(self._publisher.tell, tenants)
                await asyncio.sleep(_REST_SECONDS)
        finally:
            self._telling = None
