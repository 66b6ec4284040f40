"""What a token may allow, and which of it each role of a tenant has."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeGuard, get_args

from foundation.errors import Fault, Invalid

Scope = Literal[
    "graphs:read",
    "graphs:write",
    "runs:read",
    "runs:write",
    "triggers:read",
    "triggers:write",
    "secrets:read",
    "secrets:write",
    "members:read",
    "members:write",
    "tokens:read",
    "tokens:write",
    "audit:read",
    "tenant:read",
]
Role = Literal["viewer", "operator", "editor", "admin"]
"""From the least to the most: each may do what those before it may."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_VIEWER: Final = frozenset[Scope](("graphs:read", "runs:read", "triggers:read", "tenant:read"))
_OPERATOR: Final = _VIEWER | frozenset[Scope](
    ("runs:write", "triggers:write", "secrets:read", "members:read")
)
_EDITOR: Final = _OPERATOR | frozenset[Scope](("graphs:write", "secrets:write"))

ROLE_SCOPES: Final[Mapping[Role, frozenset[Scope]]] = {
    "viewer": _VIEWER,
    "operator": _OPERATOR,
    "editor": _EDITOR,
    "admin": frozenset(SCOPES),
}


def is_role(value: object) -> TypeGuard[Role]:
    return value in ROLES


def scopes_of(role: Role, named: Iterable[str] | None = None) -> frozenset[Scope]:
    """The scopes of ``role``; only those that are ``named``, unless that is None."""
    allowed = ROLE_SCOPES[role]
    return allowed if named is None else allowed & frozenset(named)


def check_scopes(named: Iterable[str]) -> frozenset[Scope]:
    """``named`` as scopes; raises Invalid for those that there are not."""
    given = list(named)
    faults = [
        Fault(f"/scopes/{place}", "unknown_scope", f"{name!r} is no scope", f"Use {_ALL}.")
        for place, name in enumerate(given)
        if name not in SCOPES
    ]
    if faults:
        raise Invalid("The scopes have faults.", faults)
    return frozenset(scope for scope in SCOPES if scope in given)


_ALL: Final = ", ".join(SCOPES)
