"""The rows of API keys: made, listed and revoked."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from foundation.errors import NotFound
from foundation.ids import TenantId, new_id
from foundation.paging import Page, decode_cursor, encode_cursor
from foundation.tenant_pool import TenantPool
from live_api.identity import statements
from live_api.identity.api_keys import ApiKey, Hasher, new_api_key
from live_api.identity.principal import Principal
from live_api.identity.roles import Role, Scope
from live_api.identity.standing import lock_standing

_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What may be known of an API key: all but its secret."""

    token_id: str
    name: str
    prefix: str
    role: Role
    scopes: Sequence[Scope] | None
    """None: all of its role."""
    created_at: datetime
    created_by: str
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyStore:
    """API keys of all tenants; every method asks for one tenant's and sees no other's."""

    def __init__(self, pool: TenantPool, hasher: Hasher) -> None:
        self._pool = pool
        self._hasher = hasher

    async def create(
        self,
        maker: Principal,
        name: str,
        role: Role,
        scopes: Collection[Scope] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[KeyInfo, ApiKey]:
        """Make a key of the maker's tenant, good no longer than the maker's own. Its secret is
        known from now on to nobody but the caller.

        Raises what :func:`lock_standing` does.
        """
        key = new_api_key()
        given: dict[str, Any] = {
            "tenant": maker.tenant,
            "token_id": new_id(),
            "prefix": key.prefix,
            "hash": await self._hasher.hash(key.secret),
            "name": name,
            "role": role,
            "scopes": None if scopes is None else sorted(scopes),
            "expires_at": expires_at,
            "author": maker.subject,
        }
        async with self._pool.connection(maker.tenant) as connection, connection.transaction():
            given["makers_end"] = await lock_standing(connection, maker)
            row = await (await connection.execute(statements.ADD_KEY, given)).fetchone()
        assert row is not None
        return KeyInfo(**row), key

    async def get(self, tenant: TenantId, token_id: str) -> KeyInfo:
        """Raises NotFound."""
        given = {"tenant": tenant, "token_id": token_id}
        async with self._pool.connection(tenant) as connection:
            row = await (await connection.execute(statements.KEY, given)).fetchone()
        if row is None:
            raise key_not_found(token_id)
        return KeyInfo(**row)

    async def list(self, tenant: TenantId, limit: int, cursor: str | None = None) -> Page[KeyInfo]:
        """At most ``limit`` keys, the newest first, revoked ones too. Raises Invalid."""
        before = _LAST if cursor is None else decode_cursor(cursor)
        # One more than asked for tells whether there is a next page.
        given = {"tenant": tenant, "before": before, "limit": limit + 1}
        async with self._pool.connection(tenant) as connection:
            rows = await (await connection.execute(statements.KEYS, given)).fetchall()
        infos = [KeyInfo(**row) for row in rows[:limit]]
        return Page(infos, encode_cursor(infos[-1].token_id) if len(rows) > limit else None)

    async def revoke(self, tenant: TenantId, token_id: str) -> None:
        """Let nobody log in with the key any more, and end its sessions. Raises NotFound."""
        given = {"tenant": tenant, "token_id": token_id}
        async with self._pool.connection(tenant) as connection:
            row = await (await connection.execute(statements.REVOKE_KEY, given)).fetchone()
        if row is None:
            raise key_not_found(token_id)


def key_not_found(token_id: str) -> NotFound:
    """The same whether there is none or it is another tenant's."""
    return NotFound(
        f"there is no API key {token_id}", hint="`GET /api/v1/tokens` has them.", token=token_id
    )
