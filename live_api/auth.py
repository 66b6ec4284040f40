"""Bearer tokens: signed JWTs (HS256) that say for which tenant, by whom, and what they may do."""

import base64
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NewType, cast, get_args

import jwt

from foundation.errors import Fault, Forbidden, GraphwrightError, Invalid, Unauthenticated
from foundation.ids import TenantId, new_id
from foundation.recent import Recent

Scope = Literal["graphs:read", "graphs:write", "runs:read", "runs:write"]
SigningKey = NewType("SigningKey", bytes)

SCOPES: tuple[Scope, ...] = get_args(Scope)
ISSUER = AUDIENCE = "graphwright"

_ALGORITHM = "HS256"
_CLAIMS = ["iss", "aud", "sub", "tenant", "scope", "iat", "exp", "jti"]
_KEY_BYTES = 32  # as long as the hash, RFC 7518 section 3.2
_CLOCK_SKEW_SECONDS = 5
_REMEMBERED = 4_096  # tokens of some 400 bytes
_TENANT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class SigningKeyError(GraphwrightError):
    """The file with the signing key cannot be trusted."""

    code = "signing_key_unusable"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a subject, acting for one tenant, with these scopes."""

    tenant: TenantId
    subject: str
    scopes: frozenset[str]
    expires_at: float
    """Unix time from which on the token is refused."""

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the token has ``scope``."""
        if scope not in self.scopes:
            raise Forbidden(
                f"this needs the scope {scope}",
                hint=f"Ask for a token whose scope includes {scope}.",
            )


def signing_key(state: Path) -> SigningKey:
    """The key in ``<state>/signing.key``, made on first use; processes that start at once agree.

    Raises SigningKeyError when others can read the file, or when it holds too short a key.
    """
    path = state / "signing.key"
    if not path.exists():
        _create_key(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SigningKeyError(
            f"{path} can be read by others than its owner",
            hint=f"Whoever read it can make tokens. Remove it, or run `chmod 600 {path}`.",
        )
    key = path.read_bytes().strip()
    if len(key) < _KEY_BYTES:
        raise SigningKeyError(
            f"{path} holds less than {_KEY_BYTES} bytes", hint="Remove it; a new one will be made."
        )
    return SigningKey(key)


def _create_key(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)))
            file.flush()
            os.fsync(descriptor)
        # Never replaces: of several processes the first one's key is everybody's.
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def check_tenant(tenant: str) -> TenantId:
    """``tenant`` as an id; raises Invalid unless it is a tenant's name."""
    if not _TENANT.fullmatch(tenant):
        fault = Fault(
            "", "bad_name", f"{tenant!r} is no tenant's name",
            "Lower-case letters, digits and inner hyphens, at most 63.",
        )  # fmt: skip
        raise Invalid(fault.message, [fault], hint=fault.hint)
    return TenantId(tenant)


def issue_token(
    key: SigningKey,
    tenant: str,
    subject: str,
    scopes: Iterable[str] = SCOPES,
    lifetime: float = 12 * 3600,
) -> str:
    """A token good for ``lifetime`` seconds. Raises Invalid for a bad tenant name."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "tenant": check_tenant(tenant),
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + int(lifetime),
        "jti": new_id(),
    }
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


class Verifier:
    """Verifies tokens, and remembers good ones until they expire: a client sends the same again."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._good = Recent[str, Principal](_REMEMBERED)

    def verify(self, token: str) -> Principal:
        """Who presents ``token``. Raises Unauthenticated."""
        known = self._good.get(token)
        if known is not None and time.time() < known.expires_at:
            return known
        caller = verify(self._key, token)
        self._good.keep(token, caller)
        return caller


def verify(key: SigningKey, token: str) -> Principal:
    """Who presents ``token``. Raises Unauthenticated, with no word on how to forge a better one."""
    try:
        # The algorithm is ours to name: the token's own header is not asked.
        claims = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            leeway=_CLOCK_SKEW_SECONDS,
            options={"require": _CLAIMS},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("the token has expired", hint=_NEW_TOKEN) from None
    except (jwt.InvalidTokenError, UnicodeError):
        raise Unauthenticated("the token is not valid", hint=_NEW_TOKEN) from None
    tenant, subject, scope = (cast("object", claims[name]) for name in ("tenant", "sub", "scope"))
    if not (isinstance(tenant, str) and isinstance(subject, str) and isinstance(scope, str)):
        raise Unauthenticated("the token is not valid", hint=_NEW_TOKEN)
    if not _TENANT.fullmatch(tenant):
        raise Unauthenticated("the token names no tenant", hint=_NEW_TOKEN)
    expires_at = int(claims["exp"]) + _CLOCK_SKEW_SECONDS
    return Principal(TenantId(tenant), subject, frozenset(scope.split()), expires_at)


_NEW_TOKEN = "Get a new one with `graphwright token --tenant TENANT`."  # noqa: S105 - a hint
