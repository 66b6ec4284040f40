"""Whose webhook an address is."""

import re
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from psycopg.rows import DictRow

from foundation.database import AsyncPool
from foundation.ids import GraphId, TenantId, TriggerId
from foundation.recent import Recent
from graph_defs.triggers import WebhookTrigger
from sensors.inbox_statements import ADDRESSED

_ADDRESS = re.compile(r"[0-9a-f]{32}")
_KEPT: Final = 4_096
_FRESH_SECONDS: Final = 3.0
"""How old an answer may be that is not asked for again; as long as secrets are."""
_WAIT_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Addressee:
    """An enabled webhook."""

    tenant: TenantId
    trigger_id: TriggerId
    graph_id: GraphId
    trigger: WebhookTrigger


class Nobody(Enum):
    """There is no webhook to call, and why."""

    UNKNOWN = auto()
    DISABLED = auto()


Found: TypeAlias = Addressee | Nobody


class Addresses:
    """Finds webhooks, and remembers for a moment what was found. For one event loop."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        self._found = Recent[str, tuple[Found, float]](_KEPT)
        # Apart: addresses that are made up drive out no webhook.
        self._unknown = Recent[str, float](_KEPT)

    def remembered(self, address: str) -> Found | None:
        """What was found a moment ago, or can be said without looking it up; else None."""
        if not _ADDRESS.fullmatch(address):
            return Nobody.UNKNOWN
        now = time.monotonic()
        found = self._found.get(address)
        if found is not None and now < found[1]:
            return found[0]
        unknown_until = self._unknown.get(address)
        return Nobody.UNKNOWN if unknown_until is not None and now < unknown_until else None

    async def find(self, address: str) -> Found:
        """Look up an address that is not remembered.

        Raises psycopg.OperationalError and psycopg_pool.PoolTimeout where the database does not
        answer.
        """
        fresh_until = time.monotonic() + _FRESH_SECONDS
        async with self._pool.connection(timeout=_WAIT_SECONDS) as connection:
            cursor = await connection.execute(ADDRESSED, {"address": address})
            row = await cursor.fetchone()
        if row is None:
            self._unknown.keep(address, fresh_until)
            return Nobody.UNKNOWN
        found = _addressee(row) if row["enabled"] else Nobody.DISABLED
        self._found.keep(address, (found, fresh_until))
        return found


def _addressee(row: DictRow) -> Addressee:
    return Addressee(
        tenant=TenantId(row["tenant"]),
        trigger_id=TriggerId(row["trigger_id"]),
        graph_id=GraphId(row["graph_id"]),
        trigger=WebhookTrigger.model_validate(row["config"]),
    )
