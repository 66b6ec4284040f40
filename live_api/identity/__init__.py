"""Who calls, for which tenant, and what they may do (docs/identity.md)."""

from live_api.identity.own_tokens import issue_stream_token, issue_token, verify
from live_api.identity.principal import Principal, check_tenant
from live_api.identity.roles import (
    ROLE_SCOPES,
    ROLES,
    SCOPES,
    Role,
    Scope,
    check_scopes,
    is_role,
    scopes_of,
)
from live_api.identity.signing_key import SigningKey, SigningKeyError, signing_key
from live_api.identity.verifier import Verifier

__all__ = [
    "ROLES",
    "ROLE_SCOPES",
    "SCOPES",
    "Principal",
    "Role",
    "Scope",
    "SigningKey",
    "SigningKeyError",
    "Verifier",
    "check_scopes",
    "check_tenant",
    "is_role",
    "issue_stream_token",
    "issue_token",
    "scopes_of",
    "signing_key",
    "verify",
]
