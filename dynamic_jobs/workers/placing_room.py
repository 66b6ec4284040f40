"""How many runs a worker places at once. The others wait on the queue, for whoever has room."""

import asyncio
import logging
import time

import psycopg

from dynamic_jobs.queueing.claiming import FIRST_TURN, Claim, claim_unplaced
from dynamic_jobs.queueing.handing_back import set_aside
from foundation.database import AsyncConnection

_log = logging.getLogger(__name__)


class PlacingRoom:
    """The room of one worker, on its event loop.

    Nobody can tell on the queue which of the runs that are ready are to be placed. Whoever claims
    more of them than it has room for sets them aside, so that they are in nobody's way, and may be
    cancelled, paused, or placed by others, in fair turns.
    """

    def __init__(self, worker: str, most: int, look_seconds: float) -> None:
        """``look_seconds``: how often it looks for runs that others have set aside."""
        self._worker = worker
        self._most = most
        self._look_seconds = look_seconds
        self._look_at = 0.0
        self._turn = FIRST_TURN
        self._placing = set[asyncio.Task[None]]()

    @property
    def placing(self) -> int:
        """How many runs are being placed."""
        return len(self._placing)

    def take(self, placing: asyncio.Task[None]) -> None:
        """A run is being placed, until the task ends."""
        self._placing.add(placing)
        placing.add_done_callback(self._placing.discard)

    async def claim(self, connection: AsyncConnection) -> list[Claim]:
        """Take as many of those that were set aside as there is room for."""
        room, now = self._most - len(self._placing), time.monotonic()
        if room <= 0 or now < self._look_at:
            return []
        claims = await claim_unplaced(connection, self._worker, room, self._turn)
        if claims:
            self._turn = claims[-1].turn
        self._look_at = now if len(claims) == room else now + self._look_seconds
        return claims

    async def set_aside(self, connection: AsyncConnection, claims: list[Claim]) -> list[Claim]:
        """Set aside those that there is no room for; the others."""
        room = max(0, self._most - len(self._placing))
        excess = [claimed for claimed in claims if claimed.goes_elsewhere][room:]
        if not excess:
            return claims
        try:
            aside = await set_aside(connection, excess)
        except psycopg.Error as error:  # they wait here for one of the threads
            _log.warning("%d runs cannot be set aside: %s", len(excess), error)
            return claims
        self._look_at = 0.0
        return [claimed for claimed in claims if claimed.lease.run_id not in aside]
