"""Who calls."""

import re
from dataclasses import dataclass
from typing import Final

from foundation.errors import Fault, Forbidden, Invalid
from foundation.ids import RunId, TenantId
from live_api.identity.roles import Role, Scope

_TENANT: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_MAX_SUBJECT: Final = 255  # OpenID Connect Core 1.0, section 2
_KEY: Final = "key:"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a subject, acting for one tenant, with these scopes."""

    tenant: TenantId
    subject: str
    scopes: frozenset[str]
    expires_at: float
    """Unix time from which on the token is refused."""
    role: Role | None = None
    """None: the token has scopes, but no role."""
    token_id: str = ""
    """The token's ``jti``; empty where a provider gives none."""
    is_member: bool = False
    """Whether the role is that of a member, rather than the token's own."""
    run_id: RunId | None = None
    """Set by a stream token: it is good for nothing but the events of this run."""

    def require(self, scope: Scope) -> None:
        """Raise Forbidden unless the token has ``scope``."""
        if scope not in self.scopes:
            raise Forbidden(
                f"this needs the scope {scope}",
                hint=f"Ask for a token whose scope includes {scope}.",
            )


def is_tenant(name: str) -> bool:
    """Whether a tenant can have this name."""
    return _TENANT.fullmatch(name) is not None


def is_subject(name: str) -> bool:
    """Whether a provider's token can have this ``sub``, and our tables too.

    It must not look like the subject of an API key.
    """
    return is_printable(name) and not name.startswith(_KEY)


def is_printable(text: str) -> bool:
    """Whether our tables and lists can have this text of a provider's token."""
    return 0 < len(text) <= _MAX_SUBJECT and text.isprintable()


def key_subject(prefix: str) -> str:
    """The subject of sessions with the API key of this prefix."""
    return _KEY + prefix


def prefix_of(subject: str) -> str | None:
    """The prefix of the API key whose :func:`key_subject` this is."""
    return subject.removeprefix(_KEY) if subject.startswith(_KEY) else None


def check_tenant(tenant: str) -> TenantId:
    """``tenant`` as an id; raises Invalid unless it is a tenant's name."""
    if not is_tenant(tenant):
        fault = Fault(
            "", "bad_name", f"{tenant!r} is no tenant's name",
            "Lower-case letters, digits and inner hyphens, at most 63.",
        )  # fmt: skip
        raise Invalid(fault.message, [fault], hint=fault.hint)
    return TenantId(tenant)
