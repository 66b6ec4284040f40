"""Idempotency keys: a trigger that is sent twice with the same key starts one run."""

import hashlib
import json
from collections.abc import Collection
from typing import Any, ClassVar, Final, LiteralString

from psycopg.rows import DictRow

from dynamic_jobs.creating.new_run import Idempotency
from dynamic_jobs.creating.trigger import Trigger
from foundation.database import AsyncConnection
from foundation.errors import GraphwrightError
from foundation.ids import GraphId, RunId, TenantId

LOOK_UP: Final[LiteralString] = """
SELECT run_id::text, request, expires_at <= now() AS expired
FROM graphwright.idempotency_keys WHERE tenant = %s AND key = %s
"""

LOOK_UP_MANY: Final[LiteralString] = """
SELECT key, run_id::text, request, expires_at <= now() AS expired
FROM graphwright.idempotency_keys WHERE tenant = %(tenant)s AND key = ANY(%(keys)s)
"""

FORGET: Final[LiteralString] = """
DELETE FROM graphwright.idempotency_keys WHERE tenant = %s AND key = %s AND expires_at <= now()
"""


class KeyReused(GraphwrightError):
    """An Idempotency-Key came with another request than before."""

    code: ClassVar[str] = "idempotency_key_reused"
    status: ClassVar[int] = 409


def digest(graph_id: GraphId, trigger: Trigger) -> Idempotency | None:
    """The trigger's key, with a digest of all that it asks for; None where it has no key.

    The same params in another order are the same.
    """
    if trigger.idempotency_key is None:
        return None
    asked: list[Any] = [
        graph_id, trigger.params, trigger.priority, trigger.not_before, trigger.live,
    ]  # fmt: skip
    if trigger.parent is not None:
        asked += [trigger.parent.run_id, trigger.parent.steps]
    # Not by orjson: the params are as they came, and need not be what it can write.
    text = json.dumps(asked, sort_keys=True, default=str)
    return Idempotency(trigger.idempotency_key, hashlib.sha256(text.encode()).hexdigest())


async def used_by(
    connection: AsyncConnection, tenant: TenantId, idempotency: Idempotency
) -> RunId | None:
    """The run that was started with the key; None where there is none, or the key has expired.

    Raises :class:`KeyReused` where it was started by another request.
    """
    cursor = await connection.execute(LOOK_UP, (tenant, idempotency.key))
    row = await cursor.fetchone()
    if row is None:
        return None
    if row["expired"]:
        await connection.execute(FORGET, (tenant, idempotency.key))
        return None
    return _run_of(row, idempotency)


async def many_used_by(
    connection: AsyncConnection, tenant: TenantId, given: Collection[Idempotency]
) -> dict[str, RunId]:
    """:func:`used_by` for many keys at once: the run of each that has one."""
    asked = {each.key: each for each in given}
    values = {"tenant": tenant, "keys": list(asked)}
    found: dict[str, RunId] = {}
    for row in await (await connection.execute(LOOK_UP_MANY, values)).fetchall():
        if row["expired"]:
            await connection.execute(FORGET, (tenant, row["key"]))
        else:
            found[row["key"]] = _run_of(row, asked[row["key"]])
    return found


def _run_of(row: DictRow, idempotency: Idempotency) -> RunId:
    if row["request"] != idempotency.request:
        raise KeyReused(
            "this Idempotency-Key was used for another request",
            hint="Make a new key for each trigger; send it again unchanged only to repeat that.",
            run_id=row["run_id"],
            key=idempotency.key,
        )
    return RunId(row["run_id"])
