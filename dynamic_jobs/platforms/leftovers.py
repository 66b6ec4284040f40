"""What steps have left running whose run is over: their worker was killed, and no attempt came that
would have ended it. One worker looks for it, where tenants may run containers or pods. Containers
of runs are found with those of steps: whoever was about to remove one may not have come to that.

A job of AWS Batch goes on to its end, or its timeout: it is its tenant's account that it runs in.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Final, LiteralString, Protocol

import psycopg

from foundation.database import AsyncConnection, async_connect
from foundation.turns import give_up_after, has_turn

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 60.0
_OVER_SECONDS: Final = 60.0
"""So long after the end of a run its worker may still be ending its steps."""
_GIVE_UP_SECONDS: Final = 15 * 60.0
"""Longer than platforms that hardly answer keep a look."""

PLACES: Final[LiteralString] = """
SELECT DISTINCT jsonb_typeof(placement #> '{steps,docker}') = 'object'
        OR 'docker' = ANY (isolations) AS docker,
    placement #>> '{steps,kubernetes,namespace}' AS namespace
FROM graphwright.tenants WHERE placement ? 'steps' OR 'docker' = ANY (isolations)
"""

# Only of those that are known: another installation may use the same socket or namespace.
OVER: Final[LiteralString] = """
SELECT t.run_id FROM run_tags t
JOIN graphwright.runs r ON r.tenant = t.value COLLATE "C" AND r.run_id = t.run_id::uuid
WHERE t.run_id = ANY(%(run_ids)s::text[]) AND t.key = 'graphwright/tenant'
    AND r.ended_at < now() - %(seconds)s * interval '1 second'
"""


class Place(Protocol):
    """Where steps run. Both methods block, and raise what the library of the platform does."""

    def found(self) -> dict[str, str]:
        """Names of all that steps have started there, and the runs that they are of."""
        ...

    def remove(self, names: Collection[str], /) -> None:
        """Remove these; one that is not there any more is nothing to tell."""
        ...


class Leftovers:
    """Looks as long as :meth:`run` runs, if no other worker does."""

    def __init__(self, database_url: str, over_seconds: float = _OVER_SECONDS) -> None:
        self._url = database_url
        self._over_seconds = over_seconds

    async def run(self) -> None:
        """Look every minute, or wait for the turn to, until cancelled."""
        while True:
            try:
                async with await async_connect(self._url) as connection:
                    await give_up_after(connection, _GIVE_UP_SECONDS)
                    while await has_turn(connection, "leftovers"):
                        await self.look(connection)
                        await asyncio.sleep(_LOOK_SECONDS)
            except psycopg.Error as error:
                _log.warning("what steps have left cannot be looked for: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self, connection: AsyncConnection) -> None:
        """Look once, wherever steps may run."""
        rows = await (await connection.execute(PLACES)).fetchall()
        docker = any(row["docker"] for row in rows)
        namespaces = sorted({row["namespace"] for row in rows if row["namespace"]})
        for place in await asyncio.to_thread(_places, docker, namespaces):
            try:
                await self.clear(connection, place)
            except psycopg.Error:
                raise
            except Exception as error:  # of any platform: the next look may find it there again
                _log.warning("what steps have left cannot be removed: %s", error)

    async def clear(self, connection: AsyncConnection, place: Place) -> None:
        """Remove what is there of runs that are over."""
        found = await asyncio.to_thread(place.found)
        given = {"run_ids": list(set(found.values())), "seconds": self._over_seconds}
        rows = await (await connection.execute(OVER, given)).fetchall()
        over = {row["run_id"] for row in rows}
        names = [name for name, run_id in found.items() if run_id in over]
        if names:
            _log.warning("removing what steps have left: %s", ", ".join(names))
            await asyncio.to_thread(place.remove, names)


def _places(docker: bool, namespaces: Collection[str]) -> list[Place]:
    """The imports take seconds."""
    found: list[Place] = []
    if docker:
        from dynamic_jobs.platforms.containers import Containers

        found.append(Containers())
    if namespaces:
        from dynamic_jobs.platforms.pods import Pods

        found += [Pods(namespace) for namespace in namespaces]
    return found
