"""How the worker that holds a run is told that it is to be cancelled or paused.

The wish itself is in the run's row. The notification only makes it quick: a worker looks up what
was asked for while it did not listen, and whoever takes a run over sees it in the row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, LiteralString, Self, TypeAlias

from foundation.database import AsyncConnection, Connection
from foundation.errors import NotFound
from foundation.ids import RunId, TenantId

CHANNEL: Final = "graphwright_control"

Wish: TypeAlias = Literal["cancel", "pause"]

STATUS: Final[LiteralString] = """
SELECT r.status, r.started_at IS NOT NULL AS started, d.pipeline_name AS job_name
FROM graphwright.runs r JOIN runs d ON d.run_id = %(run_id)s::text
WHERE r.tenant = %(tenant)s AND r.run_id = %(run_id)s::uuid
"""

NOTIFY: Final[LiteralString] = "SELECT pg_notify('graphwright_control', %s)"

WISHES: Final[LiteralString] = """
SELECT r.run_id::text, r.epoch, CASE WHEN r.status = 'cancelling' THEN 'cancel' ELSE 'pause' END
    AS wish
FROM unnest(%s::text[], %s::uuid[]) AS held (tenant, run_id)
JOIN graphwright.runs r ON r.tenant = held.tenant AND r.run_id = held.run_id
WHERE r.status = 'cancelling' OR r.pausing
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What the holder of a run is asked to do. ``epoch`` says which of its claims is meant.

    A cancel holds for every later claim too, a pause only for this one.
    """

    run_id: RunId
    wish: Wish
    epoch: int

    @property
    def text(self) -> str:
        return f"{self.wish} {self.run_id} {self.epoch}"

    @classmethod
    def parse(cls, text: str) -> Self:
        wish, run_id, epoch = text.split()
        return cls(RunId(run_id), "cancel" if wish == "cancel" else "pause", int(epoch))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands, whether it has ever started, and the name of its Dagster job."""

    status: str
    started: bool
    job_name: str


def tell(connection: Connection, request: Request) -> None:
    """Notify all workers."""
    connection.execute(NOTIFY, (request.text,))


async def wishes(connection: AsyncConnection, runs: Mapping[RunId, TenantId]) -> list[Request]:
    """What is asked for of these runs."""
    cursor = await connection.execute(WISHES, (list(runs.values()), list(runs)))
    rows = await cursor.fetchall()
    return [Request(RunId(row["run_id"]), row["wish"], row["epoch"]) for row in rows]


def standing_of(connection: Connection, tenant: TenantId, run_id: RunId) -> Standing:
    """How the run stands. Raises :class:`NotFound` where this tenant has no such run."""
    row = connection.execute(STATUS, {"tenant": tenant, "run_id": run_id}).fetchone()
    if row is None:
        raise NotFound("there is no such run", run_id=run_id)
    return Standing(**row)
