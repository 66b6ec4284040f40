"""Turns: what only one process of an installation does, as long as its connection lasts."""

from typing import Final, LiteralString

from foundation.database import AsyncConnection, Connection

# Of the session: it ends with the connection, however that ends.
TAKE: Final[LiteralString] = (
    "SELECT pg_try_advisory_lock(hashtextextended('graphwright/' || %s, 0)) AS mine"
)

# Shared and let go at once, so that those who look are not in each other's way.
IS_TAKEN: Final[LiteralString] = """
SELECT NOT pg_try_advisory_xact_lock_shared(hashtextextended('graphwright/' || %s, 0)) AS taken
"""

GIVE_UP: Final[LiteralString] = "SELECT set_config('idle_session_timeout', %s, false)"


async def has_turn(connection: AsyncConnection, work: str) -> bool:
    """Whether it is for this connection to do the ``work``: no other has taken the turn."""
    row = await (await connection.execute(TAKE, (work,))).fetchone()
    return row is not None and row["mine"]


def is_taken(connection: Connection, work: str) -> bool:
    """Whether a connection has the turn, so that it is not worth opening one to ask for it."""
    row = connection.execute(IS_TAKEN, (work,)).fetchone()
    return row is not None and row["taken"]


async def give_up_after(connection: AsyncConnection, seconds: float) -> None:
    """Have the server end this connection, and its turn, once it has asked nothing for so long.

    Else a process that stands still, or whose host is gone, would have it for hours.
    """
    await connection.execute(GIVE_UP, (f"{seconds:f}s",))
