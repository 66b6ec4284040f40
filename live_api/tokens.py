"""API keys: made, listed and revoked. No route gives a key back."""

from datetime import UTC, datetime
from typing import Annotated, TypeAlias

from fastapi import Depends, Path, Query, Response, status
from pydantic import BaseModel, Field

from foundation.errors import Fault, Forbidden, Invalid
from graph_defs.finding import UUID
from live_api.bodies import Body
from live_api.dependencies import Services, require, services
from live_api.identity import Principal, Role, Scope, check_scopes, scopes_of
from live_api.identity.key_store import KeyInfo, key_not_found
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router
from live_api.times import Time

PREFIX = "/api/v1/tokens"

router = api_router(PREFIX, "tokens", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("tokens:read"))]
Writer = Annotated[Principal, Depends(require("tokens:write"))]
TokenPath: TypeAlias = Annotated[str, Path(description="The API key's `token_id`.")]


class TokenRequest(Body):
    """A new API key."""

    name: str = Field(
        min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$", description="For people."
    )
    role: Role
    scopes: list[str] | None = Field(
        None, max_length=100, description="No more than these; left out: all of the role."
    )
    expires_at: Time | None = Field(
        None,
        description="Left out: it does not expire. A key that is made with another one expires "
        "with that at the latest.",
    )


class TokenModel(BaseModel):
    """What may be known of an API key."""

    token_id: str
    name: str
    prefix: str = Field(description="How the key begins, after `gw_`; logs and lists have it.")
    role: Role
    scopes: list[Scope] = Field(description="What sessions with the key may do.")
    created_at: datetime
    created_by: str
    last_used_at: datetime | None = Field(description="When it last logged in or refreshed.")
    expires_at: datetime | None
    revoked_at: datetime | None


class NewTokenModel(TokenModel):
    """An API key, with the key itself."""

    api_key: str = Field(description="Shown only now.")


class TokenPage(BaseModel):
    """Some of the tenant's API keys, the newest first."""

    items: list[TokenModel]
    next_cursor: NextCursor


@router.post(
    "",
    summary="Make an API key",
    status_code=status.HTTP_201_CREATED,
    response_description="The key, which is not shown again.",
    responses=problems(413, 422),
)
async def create_token(
    body: TokenRequest, response: Response, parts: Parts, caller: Writer
) -> NewTokenModel:
    """Makes an API key, which may do no more than who makes it."""
    scopes = None if body.scopes is None else check_scopes(body.scopes)
    _check(body, scopes)
    refuse_more_than_own(caller, scopes_of(body.role, scopes))
    info, key = await parts.identity.keys.create(
        caller, body.name, body.role, scopes, body.expires_at
    )
    response.headers["Location"] = f"{PREFIX}/{info.token_id}"
    return NewTokenModel(**_model(info).model_dump(), api_key=str(key))


@router.get("", summary="List API keys", responses=problems(422))
async def list_tokens(
    parts: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200, description="Keys of one page.")] = 50,
    cursor: Cursor = None,
) -> TokenPage:
    """The tenant's API keys, the newest first; revoked ones too."""
    page = await parts.identity.keys.list(caller.tenant, limit, cursor)
    return TokenPage(items=[_model(info) for info in page.items], next_cursor=page.next_cursor)


@router.get("/{token_id}", summary="Read what may be known of an API key", responses=problems(404))
async def read_token(token_id: TokenPath, parts: Parts, caller: Reader) -> TokenModel:
    """All but the key itself."""
    _check_id(token_id)
    return _model(await parts.identity.keys.get(caller.tenant, token_id))


@router.delete(
    "/{token_id}",
    summary="Revoke an API key",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="It is revoked.",
    responses=problems(404),
)
async def revoke_token(token_id: TokenPath, parts: Parts, caller: Writer) -> None:
    """Lets nobody log in with the key any more, and ends its sessions.

    Access tokens that it was exchanged for before end by themselves, within 15 minutes.
    """
    _check_id(token_id)
    await parts.identity.keys.revoke(caller.tenant, token_id)


def refuse_more_than_own(caller: Principal, given: frozenset[Scope]) -> None:
    """Raises Forbidden where somebody would give away what he does not have himself."""
    missing = given - caller.scopes
    if missing:
        names = ", ".join(sorted(missing))
        raise Forbidden(f"you cannot give what you do not have: {names}", hint="Give less.")


def _check(body: TokenRequest, scopes: frozenset[Scope] | None) -> None:
    faults: list[Fault] = []
    for scope in sorted((scopes or frozenset()) - scopes_of(body.role)):
        hint = "Leave it out, or take a higher role."
        faults.append(Fault("/scopes", "not_of_role", f"{body.role} has not {scope}", hint))
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        faults.append(Fault("/expires_at", "in_the_past", "This is past.", "Give a later time."))
    if faults:
        raise Invalid("The request has faults.", faults)


def _check_id(token_id: str) -> None:
    if not UUID.fullmatch(token_id):
        raise key_not_found(token_id)


def _model(info: KeyInfo) -> TokenModel:
    return TokenModel(
        token_id=info.token_id,
        name=info.name,
        prefix=info.prefix,
        role=info.role,
        scopes=sorted(scopes_of(info.role, info.scopes)),
        created_at=info.created_at,
        created_by=info.created_by,
        last_used_at=info.last_used_at,
        expires_at=info.expires_at,
        revoked_at=info.revoked_at,
    )
