"""Sessions: an API key is exchanged for a short access token and a refresh token that rotates.

The refresh tokens of a session are signed and counted. The newest is good, once; one that comes
again was copied, or its answer was lost, and since nobody can tell which, the session ends.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg.rows import DictRow

from foundation.database import AsyncPool
from foundation.errors import Forbidden, Unauthenticated
from foundation.ids import TenantId, new_id
from live_api.identity import statements
from live_api.identity.api_keys import Hasher, parse_api_key
from live_api.identity.own_tokens import (
    RefreshClaims,
    issue_refresh_token,
    issue_token,
    verify_refresh,
)
from live_api.identity.principal import Principal, key_subject
from live_api.identity.roles import Role, Scope, scopes_of
from live_api.identity.signing_key import SigningKey
from live_api.identity.standing import unusable_key

ACCESS_SECONDS: Final = 900
REFRESH_SECONDS: Final = 30 * 86_400

_FORGOTTEN_AT_ONCE: Final = 100


class TokenReused(Unauthenticated):
    """A refresh token came a second time; its session is over."""

    code = "token_reused"


class Refused(Exception):
    """Why there is no session, and whose key or session it was, where that is known."""

    def __init__(self, error: Unauthenticated | Forbidden, caller: Principal | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.caller = caller


@dataclass(frozen=True, slots=True)
class Grant:
    """The tokens that a login or a refresh gives."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str = field(repr=False)
    refresh_expires_in: int
    scopes: frozenset[Scope]
    role: Role
    caller: Principal


class Sessions:
    """Logs in, refreshes and logs out. A session is found before its tenant is known."""

    def __init__(self, pool: AsyncPool, key: SigningKey, hasher: Hasher) -> None:
        self._pool = pool
        self._key = key
        self._hasher = hasher

    async def log_in(self, api_key: str, asked: Collection[Scope] | None) -> Grant:
        """Exchange an API key for tokens, with no more than the ``asked`` scopes.

        Raises Refused.
        """
        given = parse_api_key(api_key)
        if given is None:
            raise Refused(_bad_key())
        async with self._pool.connection() as connection:
            cursor = await connection.execute(statements.KEY_BY_PREFIX, {"prefix": given.prefix})
            row = await cursor.fetchone()
        good = await self._hasher.matches(None if row is None else row["hash"], given.secret)
        if row is None:
            raise Refused(_bad_key())
        row["prefix"] = given.prefix
        caller = _caller(TenantId(row["tenant"]), row)
        if not good:
            raise Refused(_bad_key(), caller)
        if row["revoked_at"] is not None or _is_over(row["expires_at"]):
            raise Refused(unusable_key(), caller)
        missing = frozenset(asked or ()) - _scopes(row)
        if missing:
            names = ", ".join(sorted(missing))
            error = Forbidden(f"the API key has not the scope {names}", hint="Ask for less.")
            raise Refused(error, caller)
        return await self._open(caller, row, asked)

    async def refresh(self, refresh_token: str) -> Grant:
        """Exchange the newest refresh token of a session for new tokens. Raises Refused."""
        claims = self._claims(refresh_token)
        session = {"tenant": claims.tenant, "session_id": claims.session_id}
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(statements.LOCK_KEY_OF_SESSION, session)
            row = await (await connection.execute(statements.LOCK_SESSION, session)).fetchone()
            if row is None or row["revoked_at"] is not None or row["is_over"]:
                raise _ended(claims.tenant, row)
            is_newest = row["generation"] == claims.generation
            if is_newest:
                given = {**session, "seconds": REFRESH_SECONDS}
                renewed = await (
                    await connection.execute(statements.RENEW_SESSION, given)
                ).fetchone()
            else:
                given = {**session, "reason": "reused"}
                await connection.execute(statements.END_SESSION, given)
                renewed = None
        caller = _caller(claims.tenant, row)
        if renewed is None:
            raise Refused(_reused(), caller)
        following = RefreshClaims(claims.tenant, claims.session_id, claims.generation + 1)
        return self._grant(caller, row, row["asked"], following, renewed["expires_at"])

    async def log_out(self, refresh_token: str) -> Principal:
        """End the session of a refresh token, whether or not it is the newest; whose it was.

        Raises Refused for what is no refresh token.
        """
        claims = self._claims(refresh_token)
        session = {"tenant": claims.tenant, "session_id": claims.session_id}
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(statements.LOCK_SESSION, session)).fetchone()
            if row is None:
                raise Refused(_over())
            await connection.execute(statements.END_SESSION, {**session, "reason": "logout"})
        return _caller(claims.tenant, row)

    def _claims(self, refresh_token: str) -> RefreshClaims:
        try:
            return verify_refresh(self._key, refresh_token)
        except Unauthenticated as error:
            raise Refused(_over()) from error

    async def _open(
        self, caller: Principal, row: DictRow, asked: Collection[Scope] | None
    ) -> Grant:
        claims = RefreshClaims(caller.tenant, new_id(), 0)
        given: dict[str, Any] = {
            "tenant": caller.tenant,
            "token_id": row["token_id"],
            "session_id": claims.session_id,
            "scopes": None if asked is None else sorted(asked),
            "seconds": REFRESH_SECONDS,
        }
        async with self._pool.connection() as connection:
            opened = await (await connection.execute(statements.OPEN_SESSION, given)).fetchone()
            await connection.execute(statements.FORGET_SESSIONS, {"limit": _FORGOTTEN_AT_ONCE})
        if opened is None:  # revoked since it was looked up
            raise Refused(unusable_key(), caller)
        return self._grant(caller, row, asked, claims, opened["expires_at"])

    def _grant(
        self,
        caller: Principal,
        key: DictRow,
        asked: Collection[str] | None,
        claims: RefreshClaims,
        session_ends: datetime,
    ) -> Grant:
        scopes = _scopes(key) if asked is None else _scopes(key) & frozenset(asked)
        refresh_seconds = max(1, int(session_ends.timestamp() - time.time()))
        access_seconds = min(ACCESS_SECONDS, refresh_seconds)
        role: Role = key["role"]
        return Grant(
            access_token=issue_token(
                self._key, caller.tenant, caller.subject, sorted(scopes), access_seconds, role
            ),
            expires_in=access_seconds,
            refresh_token=issue_refresh_token(self._key, claims, refresh_seconds),
            refresh_expires_in=refresh_seconds,
            scopes=scopes,
            role=role,
            caller=caller,
        )


def _ended(tenant: TenantId, row: DictRow | None) -> Refused:
    if row is None:
        return Refused(_over())
    return Refused(_reused() if row["reason"] == "reused" else _over(), _caller(tenant, row))


def _scopes(key: DictRow) -> frozenset[Scope]:
    return scopes_of(key["role"], key["scopes"])


def _caller(tenant: TenantId, key: DictRow) -> Principal:
    """Whose key or session it is, for the audit log; it may do nothing."""
    return Principal(
        tenant,
        key_subject(key["prefix"]),
        frozenset(),
        0,
        role=key["role"],
        token_id=key["token_id"],
    )


def _is_over(end: datetime | None) -> bool:
    return end is not None and end <= datetime.now(UTC) + timedelta(seconds=1)


def _bad_key() -> Unauthenticated:
    hint = "`POST /api/v1/tokens` makes a new one."
    return Unauthenticated("this is no API key of this installation", hint=hint)


def _over() -> Unauthenticated:
    return Unauthenticated("the session is over", hint="Log in again with the API key.")


def _reused() -> TokenReused:
    return TokenReused(
        "this refresh token was used before, so its session is over",
        hint="Keep the newest refresh token only, and log in again with the API key.",
    )
