"""Secrets: set, listed and removed. No route gives a value back."""

from datetime import datetime
from typing import Annotated, TypeAlias

from fastapi import Depends, Path, Query, Response, status
from pydantic import BaseModel, Field, SecretStr

from foundation.errors import Fault, Invalid
from foundation.secret_store import SecretInfo
from foundation.secret_store.store import MAX_PREVIOUS_SECONDS, secret_not_found
from graph_defs.names import is_node_name
from live_api.bodies import Body
from live_api.dependencies import Services, require, services
from live_api.identity import Principal
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router

PREFIX = "/api/v1/secrets"

router = api_router(PREFIX, "secrets", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("secrets:read"))]
Writer = Annotated[Principal, Depends(require("secrets:write"))]
SecretPath: TypeAlias = Annotated[str, Path(description="The secret's name.")]


class SecretRequest(Body):
    """A secret's value."""

    value: SecretStr = Field(
        description="A text of 1 to 65,536 bytes of UTF-8. It is never given back."
    )
    keep_previous_seconds: float = Field(
        default=0,
        ge=0,
        le=MAX_PREVIOUS_SECONDS,
        description="For so long signatures made with the value that it had before are good too.",
    )


class SecretModel(BaseModel):
    """What may be known of a secret: all but its value."""

    name: str
    version: int = Field(description="1 when it is new; each change of its value counts one.")
    created_at: datetime
    updated_at: datetime = Field(description="When its value was last changed.")
    previous_until: datetime | None = Field(
        description="Until when signatures made with the previous value are good."
    )
    author: str = Field(description="Who set its value.")


class SecretPage(BaseModel):
    """Some of the tenant's secrets, by their names."""

    items: list[SecretModel]
    next_cursor: NextCursor


@router.put(
    "/{name}",
    summary="Set a secret",
    response_description="The secret was there already.",
    responses={201: {"model": SecretModel, "description": "It is new."}, **problems(413, 422)},
)
async def put_secret(
    name: SecretPath, body: SecretRequest, response: Response, parts: Parts, caller: Writer
) -> SecretModel:
    """Makes a secret, or changes its value. Sending the value that it has changes nothing.

    A change shows everywhere within three seconds.
    """
    if not is_node_name(name):
        hint = "1 to 63 letters, digits and underscores, no digit first, and no word of CEL."
        fault = Fault("/name", "bad_name", "A secret cannot have this name.", hint)
        raise Invalid("The request has faults.", [fault])
    info, created = await parts.secrets.put(
        caller.tenant,
        name,
        body.value.get_secret_value(),
        caller.subject,
        keep_previous_seconds=body.keep_previous_seconds,
    )
    if created:
        response.status_code = status.HTTP_201_CREATED
        response.headers["Location"] = f"{PREFIX}/{name}"
    return _model(info)


@router.get("", summary="List secrets", responses=problems(422))
async def list_secrets(
    parts: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200, description="Secrets of one page.")] = 50,
    cursor: Cursor = None,
) -> SecretPage:
    """The tenant's secrets by their names, without their values."""
    page = await parts.secrets.list(caller.tenant, limit, cursor)
    return SecretPage(items=[_model(info) for info in page.items], next_cursor=page.next_cursor)


@router.get("/{name}", summary="Read what may be known of a secret", responses=problems(404))
async def read_secret(name: SecretPath, parts: Parts, caller: Reader) -> SecretModel:
    """All but its value."""
    _check_exists(name)
    return _model(await parts.secrets.get(caller.tenant, name))


@router.delete(
    "/{name}",
    summary="Remove a secret",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="It is gone.",
    responses=problems(404),
)
async def delete_secret(name: SecretPath, parts: Parts, caller: Writer) -> None:
    """Removes the secret with its previous value, everywhere within three seconds."""
    _check_exists(name)
    await parts.secrets.delete(caller.tenant, name)


def _check_exists(name: str) -> None:
    if not is_node_name(name):  # a NUL, which PostgreSQL does not take, is no fault of ours
        raise secret_not_found(name)


def _model(info: SecretInfo) -> SecretModel:
    return SecretModel.model_validate(info, from_attributes=True)
