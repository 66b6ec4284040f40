"""The inbox: calls of webhooks become durable deliveries, and repeated ones are known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import psycopg

from foundation.database import AsyncConnection, AsyncPool
from foundation.errors import Unavailable
from foundation.group_commit import GroupCommit
from foundation.ids import DeliveryId, GraphId, TenantId, TriggerId, new_id
from sensors.cutting import cut_after
from sensors.inbox_statements import ACCEPT
from sensors.signatures.base import FORM, content_type

_WAIT_SECONDS: Final = 3.0
"""For a connection: Slack waits no longer for its answer."""
_STORE_SECONDS: Final = 5.0
"""For the statement, where PostgreSQL hangs or is out of reach."""
_MAX_WAITING_BYTES: Final = 64 * 2**20
"""Bodies of all calls that are not stored yet."""
_COSTLY_BYTES: Final = 64 * 2**10
_COSTLY_FORM_BYTES: Final = 8 * 2**10
"""Reading a body that is longer takes too long for the common lane of the dispatcher."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call that is to be kept. Names of headers are in lower case; nothing in it is secret."""

    tenant: TenantId
    trigger_id: TriggerId
    graph_id: GraphId
    headers: Mapping[str, str]
    query: Mapping[str, str | list[str]]
    at: float
    """Unix time at which it came."""
    body: bytes | None = None
    sender_id: str | None = None
    keys: Mapping[str, float] = field(default_factory=dict[str, float])
    """By which it is known when it comes again, and for how many seconds from now."""
    refused: str | None = None
    """Why it does not count: such a call is kept to be looked at, and not dispatched."""

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return len(self.body or b"")

    @property
    def is_costly(self) -> bool:
        """Whether it is to be dispatched apart, so that it holds no other up."""
        is_form = content_type(self.headers) == FORM
        return self.size > (_COSTLY_FORM_BYTES if is_form else _COSTLY_BYTES)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a call has become."""

    delivery_id: DeliveryId
    duplicate: bool = False
    """It is a repeated one; the delivery is the first one's."""


@dataclass(frozen=True, slots=True)
class _Call:
    arrival: Arrival
    delivery_id: DeliveryId


class Inbox:
    """Stores the calls that come to one event loop, a batch at a time."""

    def __init__(self, pool: AsyncPool) -> None:
        self._commits = GroupCommit(pool, _store, wait_seconds=_WAIT_SECONDS)

    async def accept(self, arrival: Arrival) -> Accepted:
        """Keep a call, unless it is known already. When this returns, that is durable.

        Raises Unavailable, psycopg.OperationalError and psycopg_pool.PoolTimeout where the database
        does not answer, or too much waits for it. The delivery may be there even so; by its keys
        the call is then known when the sender tries again.
        """
        if self._commits.bytes and self._commits.bytes + arrival.size > _MAX_WAITING_BYTES:
            raise Unavailable("too many calls wait to be stored")
        return await self._commits.add(_Call(arrival, DeliveryId(new_id())), arrival.size)

    async def close(self) -> None:
        """Wait for what is being written."""
        await self._commits.close()


async def _store(connection: AsyncConnection, batch: Sequence[_Call]) -> Sequence[Accepted]:
    """Commit a batch. Raises Unavailable where the database is lost, or takes too long."""
    first, repeated = _apart(batch)
    try:
        async with cut_after(connection, _STORE_SECONDS):
            cursor = await connection.execute(ACCEPT, _values(first), prepare=True)
        found = {row["delivery_id"]: row["first"] for row in await cursor.fetchall()}
    except psycopg.Error as error:
        if connection.closed or isinstance(error, psycopg.errors.QueryCanceled):
            # Before or after the commit.
            raise Unavailable("the database was lost while the call was being stored") from error
        raise
    return [_accepted(call, repeated.get(call.delivery_id), found) for call in batch]


def _accepted(
    call: _Call, of: DeliveryId | None, found: Mapping[DeliveryId, DeliveryId | None]
) -> Accepted:
    """``of``: the delivery of the same batch that the call repeats."""
    known = found[of or call.delivery_id]
    return Accepted(known or of or call.delivery_id, duplicate=bool(known or of))


def _apart(batch: Iterable[_Call]) -> tuple[list[_Call], dict[DeliveryId, DeliveryId]]:
    """The calls that are new within the batch, and which of these each of the others repeats."""
    first: list[_Call] = []
    repeated: dict[DeliveryId, DeliveryId] = {}
    seen: dict[tuple[TriggerId, str], DeliveryId] = {}
    for call in batch:
        keys = [(call.arrival.trigger_id, key) for key in call.arrival.keys]
        if of := next((seen[key] for key in keys if key in seen), None):
            repeated[call.delivery_id] = of
        else:
            first.append(call)
            seen.update(dict.fromkeys(keys, call.delivery_id))
    return first, repeated


def _values(batch: Iterable[_Call]) -> dict[str, object]:
    calls: list[dict[str, Any]] = []
    keys: list[dict[str, Any]] = []
    bodies: list[bytes] = []
    start = 1  # as PostgreSQL counts
    for call in batch:
        arrival = call.arrival
        owner = {
            "tenant": arrival.tenant,
            "trigger_id": arrival.trigger_id,
            "delivery_id": call.delivery_id,
        }
        calls.append(
            {
                **owner,
                "graph_id": arrival.graph_id,
                "received_at": datetime.fromtimestamp(arrival.at, UTC),
                "sender_id": arrival.sender_id,
                "headers": orjson.dumps(arrival.headers).decode(),
                "query": orjson.dumps(arrival.query).decode(),
                "from": start,
                "bytes": None if arrival.body is None else arrival.size,
                "verdict": "pending" if arrival.refused is None else "refused",
                "reason": arrival.refused,
                "costly": arrival.is_costly,
            }
        )
        several = len(arrival.keys) > 1
        keys += [
            {**owner, "key": key, "seconds": seconds, "several": several}
            for key, seconds in arrival.keys.items()
        ]
        if arrival.body:
            bodies.append(arrival.body)
            start += len(arrival.body)
    return {
        "calls": orjson.dumps(calls).decode(),
        "keys": orjson.dumps(keys).decode(),
        "bodies": b"".join(bodies),
    }
