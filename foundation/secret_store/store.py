"""Secrets of tenants: set, listed, removed, and read by those that need their values."""

import asyncio
import base64
import binascii
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from psycopg.rows import DictRow

from foundation.database import AsyncConnection
from foundation.errors import Fault, Invalid, NotFound, TooLarge
from foundation.ids import TenantId
from foundation.paging import Page
from foundation.recent import Recent
from foundation.secret_store import statements
from foundation.secret_store.base import MasterKeys, Wrapped
from foundation.secret_store.data_keys import DataKeys, SecretUnreadable, seal_value
from foundation.secret_store.values import Value, are_ready, decrypted, translated
from foundation.secret_store.wrapping import new_data_key
from foundation.tenant_pool import TenantPool

MAX_VALUE_BYTES: Final = 64 * 2**10
MAX_PREVIOUS_SECONDS: Final = 30 * 86_400

_FRESH_SECONDS: Final = 3.0
"""How old a value may be that is not read from the database again."""
_KEPT: Final = 4_096
_KEPT_CHARACTERS: Final = 4_096
"""Of a value with its previous one; longer ones are always read."""


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What may be known of a secret: all but its value."""

    name: str
    version: int
    """1 when it is new; each change of its value counts one."""
    created_at: datetime
    updated_at: datetime
    previous_until: datetime | None
    """Until when the previous value is good for signatures too; None: it is not."""
    author: str


class SecretStore:
    """Secrets of all tenants; every method asks for one tenant's and sees no other's.

    For one event loop. A change made elsewhere shows within three seconds in what :meth:`reveal`
    and :meth:`valid` give. What needs the master key raises SecretsUnavailable where it cannot be
    used, and SecretUnreadable for a row that is not as it was written.
    """

    def __init__(self, pool: TenantPool, master_keys: MasterKeys) -> None:
        self._pool = pool
        self._master_keys = master_keys
        self._keys = DataKeys(master_keys)
        self._kept = Recent[tuple[TenantId, str], tuple[Value | None, float]](_KEPT)
        self._asked: dict[tuple[TenantId, str], asyncio.Task[Mapping[str, Value]]] = {}

    async def put(
        self,
        tenant: TenantId,
        name: str,
        value: str,
        author: str,
        *,
        keep_previous_seconds: float = 0,
    ) -> tuple[SecretInfo, bool]:
        """Set the secret, and say whether it is new.

        For ``keep_previous_seconds`` what it was before stays good for signatures.

        Setting the value that it has changes nothing, so a request may be repeated; but with
        ``keep_previous_seconds`` 0 the previous value is not good any more from then on.

        Raises Invalid for an empty value or one that is no Unicode, TooLarge past 64 KiB of UTF-8.
        """
        _check(value)
        given: dict[str, Any] = {"tenant": tenant, "name": name, "names": [name]}
        async with self._pool.connection(tenant) as connection:
            with translated():
                data_key_id, key = await self._data_key(connection, tenant)
                async with connection.transaction():
                    row = await _row(connection, statements.LOCKED_VALUE, given)
                    if row is not None and await self._is(tenant, row, value):
                        keeps = keep_previous_seconds > 0
                        statement = statements.GET if keeps else statements.DROP_PREVIOUS
                    else:
                        statement = statements.PUT
                        given |= {
                            "data_key_id": data_key_id,
                            "value": seal_value(key, tenant, name, value),
                            "author": author,
                            "keep": keep_previous_seconds,
                        }
                    stored = await _row(connection, statement, given)
        self._forget(tenant, name)
        assert stored is not None
        info = SecretInfo(**stored)
        return info, row is None and info.version == 1

    async def get(self, tenant: TenantId, name: str) -> SecretInfo:
        """What may be known of the secret. Raises NotFound."""
        async with self._pool.connection(tenant) as connection:
            row = await _row(connection, statements.GET, {"tenant": tenant, "name": name})
        if row is None:
            raise secret_not_found(name)
        return SecretInfo(**row)

    async def list(
        self, tenant: TenantId, limit: int, cursor: str | None = None
    ) -> Page[SecretInfo]:
        """At most ``limit`` secrets by their names. Raises Invalid for a bad cursor."""
        after = "" if cursor is None else _name_of(cursor)
        # One more than asked for tells whether there is a next page.
        given = {"tenant": tenant, "after": after, "limit": limit + 1}
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(statements.LIST, given)).fetchall()
        infos = [SecretInfo(**row) for row in rows[:limit]]
        return Page(infos, _cursor_of(infos[-1].name) if len(rows) > limit else None)

    async def delete(self, tenant: TenantId, name: str) -> None:
        """Remove the secret, its previous value too. Raises NotFound."""
        async with self._pool.connection(tenant) as connection:
            row = await _row(connection, statements.DELETE, {"tenant": tenant, "name": name})
        self._forget(tenant, name)
        if row is None:
            raise secret_not_found(name)

    async def reveal(self, tenant: TenantId, names: Collection[str]) -> Mapping[str, str]:
        """The values by their names; names that there are not are left out."""
        found: dict[str, str] = {}
        for name in names:
            kept = self._fresh(tenant, name)
            if kept is not None and kept[0] is not None:
                found[name] = kept[0].current
        # One that was missing a moment ago may have been set since because it was missed.
        if wanted := [name for name in names if name not in found]:
            read = await self._read(tenant, wanted)
            found |= {name: value.current for name, value in read.items()}
        return found

    async def valid(self, tenant: TenantId, name: str) -> tuple[str, ...]:
        """What a signature may be made with, newest first: one value or two, none if missing."""
        kept = self._fresh(tenant, name)
        value = kept[0] if kept else (await self._read_once(tenant, name)).get(name)
        return () if value is None else value.valid()

    async def _data_key(self, connection: AsyncConnection, tenant: TenantId) -> tuple[str, bytes]:
        row = await _row(connection, statements.DATA_KEY, {"tenant": tenant})
        if row is None:
            return await new_data_key(connection, self._master_keys, tenant)
        wrapped = Wrapped(row["master_key"], row["wrapped"])
        data_key_id: str = row["data_key_id"]
        return data_key_id, await asyncio.to_thread(self._keys.unwrap, tenant, data_key_id, wrapped)

    async def _is(self, tenant: TenantId, row: DictRow, value: str) -> bool:
        try:
            found = await self._decrypted(tenant, (row,))
        except SecretUnreadable:  # setting it anew is the way out
            return False
        return found[row["name"]].current == value

    async def _read_once(self, tenant: TenantId, name: str) -> Mapping[str, Value]:
        """However many ask for it at once, one of them asks the database."""
        key = (tenant, name)
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._read(tenant, (name,)))
            task.add_done_callback(lambda _: self._asked.pop(key))
        return await asyncio.shield(task)

    async def _read(self, tenant: TenantId, names: Collection[str]) -> Mapping[str, Value]:
        until = time.monotonic() + _FRESH_SECONDS
        given = {"tenant": tenant, "names": [*names]}
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(statements.VALUES, given)).fetchall()
        with translated():
            found = await self._decrypted(tenant, rows)
        for name in names:
            value = found.get(name)
            if value is None or len(value.current + (value.previous or "")) <= _KEPT_CHARACTERS:
                self._kept.keep((tenant, name), (value, until))
        return found

    async def _decrypted(self, tenant: TenantId, rows: Collection[DictRow]) -> Mapping[str, Value]:
        if are_ready(self._keys, rows):
            return decrypted(self._keys, tenant, rows)
        return await asyncio.to_thread(decrypted, self._keys, tenant, rows)

    def _fresh(self, tenant: TenantId, name: str) -> tuple[Value | None, float] | None:
        kept = self._kept.get((tenant, name))
        return kept if kept is not None and time.monotonic() < kept[1] else None

    def _forget(self, tenant: TenantId, name: str) -> None:
        self._kept.keep((tenant, name), (None, 0.0))


async def _row(
    connection: AsyncConnection, statement: LiteralString, given: Mapping[str, Any]
) -> DictRow | None:
    return await (await connection.execute(statement, given)).fetchone()


def _check(value: str) -> None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        size = 0
    if size > MAX_VALUE_BYTES:
        raise TooLarge(
            f"The secret is longer than {MAX_VALUE_BYTES:,} bytes.",
            hint="Keep a key to it here, and the thing itself elsewhere.",
        )
    if size == 0:
        hint = "Send a text that is not empty; bytes as base64, for instance."
        fault = Fault("/value", "bad_value", "This is no value of a secret.", hint)
        raise Invalid("The secret was not set.", [fault])


def secret_not_found(name: str) -> NotFound:
    """The same whether there is none or it is another tenant's."""
    return NotFound(
        f"there is no secret {name}", hint="`graphwright secret list` has them.", secret=name
    )


def _cursor_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def _name_of(cursor: str) -> str:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        name = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        name = ""
    if not name.isidentifier():
        fault = Fault(
            "/cursor",
            "bad_cursor",
            "This is no cursor of this list.",
            "Send the `next_cursor` of a page unchanged, or nothing for the first page.",
        )
        raise Invalid("The query has faults.", [fault])
    return name
