"""Tokens of an OpenID provider: JWTs that it signs with a key of its JWKS (RFC 7517, RFC 9068)."""

from collections.abc import Mapping
from typing import Any, Final

import jwt

from foundation.errors import Unavailable
from foundation.ids import TenantId
from foundation.settings import Settings
from live_api.identity.members import MemberStore
from live_api.identity.own_tokens import CLOCK_SKEW_SECONDS, UNREADABLE, bad_token, expired_token
from live_api.identity.principal import Principal, is_printable, is_subject, is_tenant
from live_api.identity.provider_keys import ProviderKeys
from live_api.identity.roles import SCOPES, scopes_of

_REQUIRED: Final = ["iss", "aud", "sub", "exp"]


class Provider:
    """Verifies the tokens of the provider that the settings name.

    It vouches for a tenant and a subject. What the subject may do is not its to say: the role is in
    our table, and the token's scopes, where they name any of ours, make less of it.
    """

    def __init__(self, settings: Settings, keys: ProviderKeys, members: MemberStore) -> None:
        self.issuer = settings.oidc_issuer
        self._audience = settings.oidc_audience
        self._tenant_claim = settings.oidc_tenant_claim
        self._keys = keys
        self._members = members

    async def verify(self, token: str) -> Principal:
        """Who presents ``token``.

        Raises Unauthenticated; NotAMember where the subject has no role; Unavailable where the
        provider's keys were never read.
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except UNREADABLE:
            raise bad_token() from None
        key = await self._keys.find(key_id)
        if key is None:
            if not self._keys.are_read:
                raise Unavailable("the keys of the token's issuer cannot be read")
            raise bad_token()
        return await self._principal(self._claims(token, key))

    def _claims(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                # Of the key. What the token's header names, and whatever key or address of one it
                # brings, is not asked.
                algorithms=[key.algorithm_name],
                issuer=self.issuer,
                audience=self._audience,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": _REQUIRED, "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise expired_token() from None
        except UNREADABLE:
            raise bad_token() from None

    async def _principal(self, claims: Mapping[str, Any]) -> Principal:
        tenant, subject = claims.get(self._tenant_claim), claims["sub"]
        scope, token_id = claims.get("scope", ""), claims.get("jti", "")
        if not (isinstance(tenant, str) and isinstance(subject, str)):
            raise bad_token()
        if not (isinstance(scope, str) and isinstance(token_id, str)):
            raise bad_token()
        if not is_tenant(tenant) or not is_subject(subject):
            raise bad_token()
        if token_id and not is_printable(token_id):
            raise bad_token()
        role = await self._members.role(TenantId(tenant), subject)
        named = scope.split()
        return Principal(
            tenant=TenantId(tenant),
            subject=subject,
            scopes=scopes_of(role, named if any(name in SCOPES for name in named) else None),
            expires_at=int(claims["exp"]) + CLOCK_SKEW_SECONDS,
            role=role,
            token_id=token_id,
            is_member=True,
        )
