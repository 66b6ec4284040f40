"""Reading a run's events from PostgreSQL, page by page, through the wall between tenants."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, LiteralString
from uuid import UUID

from dynamic_jobs.reading.events import (
    PUBLISHED_DAGSTER_TYPES,
    TERMINAL,
    TERMINAL_DAGSTER_TYPES,
    RunEvent,
    to_event,
)
from foundation.database import AsyncConnection
from foundation.errors import GraphwrightError, NotFound
from foundation.ids import RunId, TenantId

# One statement, so one snapshot: a run whose status is final shows all of its events.
READ: Final[LiteralString] = """
SELECT
    r.status IN ('succeeded', 'failed', 'cancelled') AS final,
    EXISTS (
        SELECT FROM event_logs t
        WHERE t.id = %(after)s AND t.run_id = r.run_id::text
          AND t.dagster_event_type = ANY(%(terminal)s)
    ) AS past_end,
    e.id, e.event, e.dagster_event_type,
    CASE WHEN e.dagster_event_type = ANY(%(terminal)s) THEN r.outputs END AS outputs,
    CASE WHEN e.dagster_event_type = ANY(%(terminal)s) THEN r.error END AS error
FROM graphwright.runs r
LEFT JOIN LATERAL (
    SELECT l.id, l.event, l.dagster_event_type
    FROM event_logs l
    WHERE l.run_id = r.run_id::text AND l.id > %(after)s
      AND (
        l.dagster_event_type = ANY(%(published)s)
        OR (l.dagster_event_type IS NULL AND l.step_key IS NOT NULL)
      )
    ORDER BY l.id
    LIMIT %(limit)s
) e ON true
WHERE r.tenant = %(tenant)s AND r.run_id = %(run_id)s
ORDER BY e.id
"""


EVENT_ID: Final = "^[0-9]{1,18}$"
"""What an event id from outside looks like; below 2**63, as in the database."""


class BadEventId(GraphwrightError):
    """A client goes on after an event that cannot have been one of ours."""

    code: ClassVar[str] = "bad_event_id"
    status: ClassVar[int] = 400


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events of one run in order. ``last_id`` is where the next page starts: read ``after`` it.

    ``full`` says that more may be there already; ``ended`` that none will ever follow.
    """

    events: Sequence[RunEvent]
    last_id: int
    full: bool
    ended: bool


def run_id_of(text: str) -> RunId:
    """A run id from outside, in the form in which it is stored. Raises :class:`NotFound`."""
    try:
        run_id = str(UUID(text))
    except ValueError:
        raise run_not_found(text) from None
    if run_id != text.lower():  # UUID() takes other spellings too
        raise run_not_found(text)
    return RunId(run_id)


def event_id_of(text: str) -> int:
    """An event id from outside, as it is stored. Raises :class:`BadEventId`."""
    if not re.fullmatch(EVENT_ID, text):
        raise BadEventId(
            f"{text[:40]!r} is the id of no event",
            hint="Send the id of the last event that you got, unchanged, or none at all.",
        )
    return int(text)


def run_not_found(run_id: str) -> NotFound:
    return NotFound("there is no such run", hint="GET /api/v1/runs lists the runs", run_id=run_id)


async def read_events(
    connection: AsyncConnection, tenant: TenantId, run_id: RunId, after: int, limit: int
) -> EventPage:
    """At most ``limit`` events of a run with ids above ``after``; 0 is the beginning.

    Nothing follows the terminal event, even if a late writer logged more. Raises
    :class:`NotFound` for an unknown run and for another tenant's.
    """
    parameters = {
        "tenant": tenant,
        "run_id": run_id,
        "after": after,
        "limit": limit,
        "published": list(PUBLISHED_DAGSTER_TYPES),
        "terminal": list(TERMINAL_DAGSTER_TYPES),
    }
    rows = await (await connection.execute(READ, parameters)).fetchall()
    if not rows:
        raise run_not_found(run_id)
    if rows[0]["past_end"]:
        return EventPage((), after, full=False, ended=True)
    events: list[RunEvent] = []
    for row in rows:
        if row["id"] is None:
            break
        event = to_event(
            run_id,
            row["id"],
            row["event"],
            row["dagster_event_type"],
            outputs=row["outputs"],
            error=row["error"],
        )
        if event is not None:
            events.append(event)
            if event["type"] in TERMINAL:
                return EventPage(events, row["id"], full=False, ended=True)
    newest: int | None = rows[-1]["id"]
    full = newest is not None and len(rows) == limit
    last_id = int(events[-1]["id"]) if events else after
    if newest is not None and full:  # what follows the last event is none, and not read again
        last_id = newest
    return EventPage(events, last_id, full=full, ended=rows[0]["final"] and not full)
