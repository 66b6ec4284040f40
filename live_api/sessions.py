"""Log in with an API key, refresh, log out."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Final, Literal, Self

from fastapi import Depends, Request, status
from pydantic import BaseModel, Field, SecretStr

from live_api.bodies import Body
from live_api.dependencies import ATTEMPTED, Services, services
from live_api.edge.addresses import client_of
from live_api.identity import Role, check_scopes
from live_api.identity.sessions import Grant, Refused
from live_api.problems import problems
from live_api.routing import api_router

router = api_router("/api/v1/auth", "auth", 401, 422, 429, 503)

Parts = Annotated[Services, Depends(services)]

_LONGEST: Final = 4_096
"""Characters of a key or a token; ours are far shorter."""


class LoginRequest(Body):
    """An API key, and what is to be done with it."""

    api_key: SecretStr = Field(max_length=_LONGEST, description="`gw_…`, as it was shown once.")
    scopes: list[str] | None = Field(
        None, max_length=100, description="No more than these; left out: all that the key has."
    )


class RefreshRequest(Body):
    """A refresh token."""

    refresh_token: SecretStr = Field(
        max_length=_LONGEST, description="The newest one of the session."
    )


class TokensModel(BaseModel):
    """A short-lived access token, and the refresh token that the next one is had for."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - no secret
    expires_in: int = Field(description="Seconds until the access token ends.")
    refresh_token: str = Field(description="Good once.")
    refresh_expires_in: int = Field(description="Seconds until the session ends, if not refreshed.")
    scope: str = Field(description="What the access token allows, separated by spaces.")
    tenant: str
    role: Role

    @classmethod
    def of(cls, grant: Grant) -> Self:
        return cls(
            access_token=grant.access_token,
            expires_in=grant.expires_in,
            refresh_token=grant.refresh_token,
            refresh_expires_in=grant.refresh_expires_in,
            scope=" ".join(sorted(grant.scopes)),
            tenant=grant.caller.tenant,
            role=grant.role,
        )


@asynccontextmanager
async def _attempt(request: Request) -> AsyncGenerator[None]:
    """Note for the audit log whose key or session a refused request was about."""
    try:
        yield
    except Refused as refused:
        request.scope["state"][ATTEMPTED] = refused.caller
        raise refused.error from None


@router.post(
    "/login",
    summary="Log in with an API key",
    response_description="The session is open.",
    responses=problems(403),
)
async def login(body: LoginRequest, request: Request, parts: Parts) -> TokensModel:
    """Exchanges an API key for an access token of 15 minutes and a refresh token of 30 days."""
    scopes = None if body.scopes is None else check_scopes(body.scopes)
    api_key, address = body.api_key.get_secret_value(), client_of(request.scope)
    async with _attempt(request):
        with parts.identity.attempts.one(address, api_key):
            grant = await parts.identity.sessions.log_in(api_key, scopes)
    request.scope["state"][ATTEMPTED] = grant.caller
    return TokensModel.of(grant)


@router.post(
    "/refresh", summary="Renew an access token", response_description="The session goes on."
)
async def refresh(body: RefreshRequest, request: Request, parts: Parts) -> TokensModel:
    """Exchanges the newest refresh token of a session for new tokens.

    The role and the scopes of the API key are read again. A refresh token that comes a second time
    ends its session, with the code `token_reused`.
    """
    async with _attempt(request):
        grant = await parts.identity.sessions.refresh(body.refresh_token.get_secret_value())
    request.scope["state"][ATTEMPTED] = grant.caller
    return TokensModel.of(grant)


@router.post(
    "/logout",
    summary="Log out",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The session is over.",
)
async def logout(body: RefreshRequest, request: Request, parts: Parts) -> None:
    """Ends the session of a refresh token. Its access token is good for up to 15 minutes more."""
    async with _attempt(request):
        caller = await parts.identity.sessions.log_out(body.refresh_token.get_secret_value())
    request.scope["state"][ATTEMPTED] = caller
