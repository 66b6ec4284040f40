"""The tokens that this installation signs itself: JWTs by HS256.

Access tokens say for which tenant, by whom, and what they may do. A stream token allows one run's
events only. A refresh token is good for nothing but :mod:`live_api.identity.sessions`. The three
differ in their audience, so that none is taken for another.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from foundation.errors import Unauthenticated
from foundation.ids import RunId, TenantId, new_id
from live_api.identity.principal import Principal, check_tenant, is_tenant
from live_api.identity.roles import SCOPES, Role, is_role
from live_api.identity.signing_key import SigningKey

ISSUER: Final = "graphwright"
AUDIENCE: Final = "graphwright"
STREAM_AUDIENCE: Final = "graphwright-stream"
REFRESH_AUDIENCE: Final = "graphwright-refresh"
STREAM_SECONDS: Final = 600
CLOCK_SKEW_SECONDS: Final = 5

UNREADABLE: Final = (jwt.InvalidTokenError, jwt.InvalidKeyError, UnicodeError, RecursionError)
"""What PyJWT raises for what is no good token; the last for JSON that is nested too deep."""

_ALGORITHM: Final = "HS256"
_CLAIMS: Final = ["iss", "aud", "sub", "tenant", "scope", "iat", "exp", "jti"]
_REFRESH_CLAIMS: Final = ["iss", "aud", "tenant", "sid", "n", "iat", "exp"]
_NEW_TOKEN: Final = "Get a new one with `graphwright token --tenant TENANT`."  # noqa: S105 - a hint


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a refresh token says: the so-manyth one of this session."""

    tenant: TenantId
    session_id: str
    generation: int


def issue_token(
    key: SigningKey,
    tenant: str,
    subject: str,
    scopes: Iterable[str] = SCOPES,
    lifetime: float = 12 * 3600,
    role: Role | None = None,
) -> str:
    """A token good for ``lifetime`` seconds. Raises Invalid for a bad tenant name."""
    claims = _access(check_tenant(tenant), subject, scopes)
    if role is not None:
        claims["role"] = role
    return _signed(key, AUDIENCE, claims, lifetime)


def issue_stream_token(key: SigningKey, caller: Principal, run_id: RunId) -> tuple[str, float]:
    """A token for the events of one run, and the Unix time at which it ends."""
    claims = {**_access(caller.tenant, caller.subject, ("runs:read",)), "run": run_id}
    return _signed(key, STREAM_AUDIENCE, claims, STREAM_SECONDS), time.time() + STREAM_SECONDS


def issue_refresh_token(key: SigningKey, claims: RefreshClaims, lifetime: float) -> str:
    """A refresh token good for ``lifetime`` seconds."""
    content = {"tenant": claims.tenant, "sid": claims.session_id, "n": claims.generation}
    return _signed(key, REFRESH_AUDIENCE, content, lifetime)


def verify(key: SigningKey, token: str) -> Principal:
    """Who presents ``token``. Raises Unauthenticated, with no word on how to forge a better one."""
    claims = _verified(key, token, (AUDIENCE, STREAM_AUDIENCE), _CLAIMS)
    tenant, subject, scope = claims["tenant"], claims["sub"], claims["scope"]
    token_id, audience = claims["jti"], claims["aud"]
    texts = (tenant, subject, scope, token_id, audience)
    if not all(isinstance(text, str) for text in texts) or not is_tenant(tenant):
        raise bad_token()
    role, run_id = claims.get("role"), claims.get("run")
    if not (role is None or is_role(role)) or (audience == STREAM_AUDIENCE) != (
        isinstance(run_id, str)
    ):
        raise bad_token()
    return Principal(
        tenant=TenantId(tenant),
        subject=subject,
        scopes=frozenset(scope.split()),
        expires_at=int(claims["exp"]) + CLOCK_SKEW_SECONDS,
        role=role,
        token_id=token_id,
        run_id=None if run_id is None else RunId(run_id),
    )


def verify_refresh(key: SigningKey, token: str) -> RefreshClaims:
    """What a refresh token of ours says. Raises Unauthenticated."""
    claims = _verified(key, token, (REFRESH_AUDIENCE,), _REFRESH_CLAIMS)
    return RefreshClaims(TenantId(claims["tenant"]), claims["sid"], claims["n"])


def bad_token() -> Unauthenticated:
    """The one answer to whatever is not a token of somebody's."""
    return Unauthenticated("the token is not valid", hint=_NEW_TOKEN)


def expired_token() -> Unauthenticated:
    return Unauthenticated("the token has expired", hint=_NEW_TOKEN)


def issuer_of(token: str) -> object:
    """Whom ``token`` names as its issuer; nothing is verified yet."""
    try:
        return jwt.decode(token, options={"verify_signature": False}).get("iss")
    except UNREADABLE:
        return None


def _access(tenant: TenantId, subject: str, scopes: Iterable[str]) -> dict[str, Any]:
    return {"sub": subject, "tenant": tenant, "scope": " ".join(scopes), "jti": new_id()}


def _signed(key: SigningKey, audience: str, claims: Mapping[str, Any], lifetime: float) -> str:
    now = int(time.time())
    times = {"iat": now, "exp": now + int(lifetime)}
    content = {"iss": ISSUER, "aud": audience, **claims, **times}
    return jwt.encode(content, key, algorithm=_ALGORITHM)


def _verified(
    key: SigningKey, token: str, audiences: Sequence[str], required: list[str]
) -> dict[str, Any]:
    try:
        # The algorithm is ours to name: the token's own header is not asked.
        return jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=ISSUER,
            audience=audiences,
            leeway=CLOCK_SKEW_SECONDS,
            options={"require": required},
        )
    except jwt.ExpiredSignatureError:
        raise expired_token() from None
    except UNREADABLE:
        raise bad_token() from None
