"""Who may do what: API keys, members, secrets; tenants and the audit log."""

from collections.abc import Sequence
from typing import Any

from graphwright.client.account_types import (
    ApiToken,
    AuditEntry,
    Login,
    Member,
    NewApiToken,
    Secret,
    Tenant,
)
from graphwright.client.calls import (
    Call,
    Listing,
    given,
    members,
    nothing,
    segment,
    was_created,
)
from graphwright.client.resource import Resource, S, call, listing
from graphwright.client.types import Role


class Auth(Resource[S]):
    """Sessions, for those who keep them by themselves; ``Client(url, api_key=…)`` does it alone."""

    @call
    def login(self, api_key: str, *, scopes: Sequence[str] | None = None) -> Call[Login]:
        asked: dict[str, Any] = members(api_key=api_key, scopes=scopes and list(scopes))
        return Call("POST", "/auth/login", json=asked)

    @call
    def refresh(self, refresh_token: str) -> Call[Login]:
        """Another session of the same right; the token is good for this once."""
        return Call("POST", "/auth/refresh", json={"refresh_token": refresh_token})

    @call
    def logout(self, refresh_token: str) -> Call[None]:
        return Call("POST", "/auth/logout", nothing, json={"refresh_token": refresh_token})


class Tokens(Resource[S]):
    """API keys, which programs log in with."""

    @listing
    def list(self) -> Listing[ApiToken]:
        return Listing("/tokens")

    @call
    def get(self, token_id: str) -> Call[ApiToken]:
        return Call("GET", f"/tokens/{segment(token_id)}")

    @call
    def create(
        self,
        name: str,
        role: Role,
        *,
        scopes: Sequence[str] | None = None,
        expires_at: str | None = None,
    ) -> Call[NewApiToken]:
        """Make one that may do no more than the caller; the key itself is in this answer alone."""
        asked = members(name=name, role=role, scopes=scopes and list(scopes), expires_at=expires_at)
        return Call("POST", "/tokens", json=asked)

    @call
    def revoke(self, token_id: str) -> Call[None]:
        return Call("DELETE", f"/tokens/{segment(token_id)}", nothing)


class Members(Resource[S]):
    """Users of an OIDC provider, with their roles in the tenant."""

    @listing
    def list(self) -> Listing[Member]:
        return Listing("/members")

    @call
    def set(self, subject: str, role: Role) -> Call[tuple[Member, bool]]:
        """Add a member or change the role; the member, and whether it is new."""
        return Call("PUT", f"/members/{segment(subject)}", was_created, json={"role": role})

    @call
    def remove(self, subject: str) -> Call[None]:
        """Raises Conflict for the last admin."""
        return Call("DELETE", f"/members/{segment(subject)}", nothing)


class Secrets(Resource[S]):
    """Secrets go in and never come out."""

    @listing
    def list(self) -> Listing[Secret]:
        """By their names."""
        return Listing("/secrets")

    @call
    def get(self, name: str) -> Call[Secret]:
        return Call("GET", f"/secrets/{segment(name)}")

    @call
    def set(
        self, name: str, value: str, *, keep_previous_seconds: float = 0
    ) -> Call[tuple[Secret, bool]]:
        """Make it or change its value; what may be known of it, and whether it is new.

        For ``keep_previous_seconds`` signatures made with the value that it had are good too.
        """
        body = {"value": value, "keep_previous_seconds": keep_previous_seconds}
        return Call("PUT", f"/secrets/{segment(name)}", was_created, json=body)

    @call
    def delete(self, name: str) -> Call[None]:
        return Call("DELETE", f"/secrets/{segment(name)}", nothing)


class Tenants(Resource[S]):
    """The caller's tenant."""

    @listing
    def list(self) -> Listing[Tenant]:
        return Listing("/tenants", paged=False)

    @call
    def get(self, tenant: str) -> Call[Tenant]:
        """With its bounds and what it uses of them."""
        return Call("GET", f"/tenants/{segment(tenant)}")


class Audit(Resource[S]):
    """Who did what."""

    @listing
    def list(
        self, *, actor: str | None = None, action: str | None = None, after: str | None = None
    ) -> Listing[AuditEntry]:
        """Newest first: by a subject, of an action such as ``graphs.publish``, from a time on."""
        return Listing("/audit", given(actor=actor, action=action, after=after))
