"""Publishing the triggers of a version: rows that outlive versions.

A webhook keeps its address, and every trigger whether it is enabled, for as long as the published
version has a trigger of its name and type.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.types.json import Json

from foundation.database import AsyncConnection
from foundation.ids import GraphId, TenantId, TriggerId, new_id
from graph_defs.json_values import JsonObject
from graph_defs.recurrence import recurrence_of
from graph_defs.triggers import TimerTrigger

_ADDRESS_BYTES: Final = 16

REMOVE: Final[LiteralString] = """
WITH gone AS (
    DELETE FROM graphwright.triggers t
    WHERE t.tenant = %(tenant)s AND t.graph_id = %(graph_id)s AND NOT EXISTS (
        SELECT FROM unnest(%(names)s::text[], %(types)s::text[]) AS kept (name, type)
        WHERE kept.name = t.name AND kept.type = t.type
    )
    RETURNING t.trigger_id, t.address
), addresses AS (
    DELETE FROM graphwright.webhook_addresses WHERE address IN (SELECT address FROM gone)
)
DELETE FROM graphwright.timers WHERE trigger_id IN (SELECT trigger_id FROM gone)
"""

# Only those that are new or say something else than before.
PUT: Final[LiteralString] = """
INSERT INTO graphwright.triggers AS t (tenant, trigger_id, graph_id, name, type, config, address)
SELECT %(tenant)s, %(trigger_id)s, %(graph_id)s, %(name)s, %(type)s, %(config)s, %(address)s
ON CONFLICT (tenant, graph_id, name) DO UPDATE
SET config = excluded.config, updated_at = now(), last_fault = NULL, last_fault_at = NULL
WHERE t.config::text <> excluded.config::text
RETURNING t.trigger_id::text, t.address, t.enabled, t.trigger_id = %(trigger_id)s AS is_new
"""

ADD_ADDRESS: Final[LiteralString] = """
INSERT INTO graphwright.webhook_addresses (address, tenant, trigger_id)
VALUES (%(address)s, %(tenant)s, %(trigger_id)s)
"""

# One that is due already keeps that: its run is only a moment late, or is to be caught up with.
# `now` is the clock's: the transaction may have begun long before.
SET_TIMER: Final[LiteralString] = """
INSERT INTO graphwright.timers AS timers (trigger_id, tenant, due_at, fire_at)
VALUES (%(trigger_id)s, %(tenant)s, %(due_at)s, %(fire_at)s)
ON CONFLICT (trigger_id) DO UPDATE SET lane = 'quick',
    due_at = CASE WHEN timers.due_at > %(now)s THEN excluded.due_at ELSE timers.due_at END,
    fire_at = CASE WHEN timers.due_at > %(now)s THEN excluded.fire_at ELSE timers.fire_at END
"""

# Two statements, the first of which waits for a dispatcher that has the timer: the second sees what
# that has made of it.
QUICK: Final[LiteralString] = (
    "UPDATE graphwright.timers SET lane = 'quick' WHERE trigger_id = %(trigger_id)s"
)
END_TIMER: Final[LiteralString] = (
    "DELETE FROM graphwright.timers WHERE trigger_id = %(trigger_id)s AND due_at > %(now)s"
)

TELL: Final[LiteralString] = "SELECT pg_notify('graphwright_triggers', 'timers')"

REMOVE_TIMER: Final[LiteralString] = (
    "DELETE FROM graphwright.timers WHERE trigger_id = %(trigger_id)s"
)


async def sync_triggers(
    connection: AsyncConnection,
    tenant: TenantId,
    graph_id: GraphId,
    triggers: Mapping[str, JsonObject],
) -> None:
    """Make the graph's triggers these of its document, in the caller's transaction."""
    given: dict[str, Any] = {"tenant": tenant, "graph_id": graph_id}
    names, types = list(triggers), [trigger["type"] for trigger in triggers.values()]
    await connection.execute(REMOVE, {**given, "names": names, "types": types})
    for name, config in triggers.items():
        webhook = config["type"] == "webhook"
        values = {
            **given,
            "trigger_id": new_id(),
            "name": name,
            "type": config["type"],
            "config": Json(config),
            "address": secrets.token_hex(_ADDRESS_BYTES) if webhook else None,
        }
        row = await (await connection.execute(PUT, values)).fetchone()
        if row is None:
            continue
        if webhook and row["is_new"]:
            await connection.execute(ADD_ADDRESS, {**values, "address": row["address"]})
        elif not webhook and row["enabled"]:
            timer = TimerTrigger.model_validate(config)
            await set_timer(connection, tenant, TriggerId(row["trigger_id"]), timer)


async def set_timer(
    connection: AsyncConnection, tenant: TenantId, trigger_id: TriggerId, timer: TimerTrigger
) -> None:
    """Let the timer fire at its next due time from now on, if it has one; and for the due time that
    has come already, if its run has not started yet."""
    now = datetime.now(UTC)
    recurrence = recurrence_of(timer)
    due_at = recurrence.next(now)
    values: dict[str, Any] = {"trigger_id": trigger_id, "tenant": tenant, "now": now}
    if due_at is None:
        await connection.execute(QUICK, values)
        await connection.execute(END_TIMER, values)
        return
    fire_at = recurrence.fire_at(UUID(trigger_id), due_at)
    await connection.execute(SET_TIMER, {**values, "due_at": due_at, "fire_at": fire_at})
    await connection.execute(TELL)  # it may be due before the dispatcher looks round


async def remove_timer(connection: AsyncConnection, trigger_id: TriggerId) -> None:
    """Let the timer fire no more."""
    await connection.execute(REMOVE_TIMER, {"trigger_id": trigger_id})
