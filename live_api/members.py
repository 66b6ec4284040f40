"""Members: who of the provider's subjects has which role in the tenant."""

from datetime import datetime
from typing import Annotated, TypeAlias

from fastapi import Depends, Path, Query, Response, status
from pydantic import BaseModel, Field

from foundation.errors import Fault, Invalid
from live_api.bodies import Body
from live_api.dependencies import Services, require, services
from live_api.identity import Principal, Role, scopes_of
from live_api.identity.members import Member, member_not_found
from live_api.identity.principal import is_subject
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router
from live_api.tokens import refuse_more_than_own

PREFIX = "/api/v1/members"

router = api_router(PREFIX, "members", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("members:read"))]
Writer = Annotated[Principal, Depends(require("members:write"))]
SubjectPath: TypeAlias = Annotated[
    str, Path(description="The `sub` of the member's tokens, as the provider has it.")
]


class MemberRequest(Body):
    """What a member may do."""

    role: Role


class MemberModel(BaseModel):
    """A member of the tenant."""

    subject: str
    role: Role
    created_at: datetime
    created_by: str
    updated_at: datetime = Field(description="When the role was last set.")


class MemberPage(BaseModel):
    """Some of the tenant's members, by their subjects."""

    items: list[MemberModel]
    next_cursor: NextCursor


@router.get("", summary="List members", responses=problems(422))
async def list_members(
    parts: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200, description="Members of one page.")] = 50,
    cursor: Cursor = None,
) -> MemberPage:
    """The tenant's members, by their subjects."""
    page = await parts.identity.members.list(caller.tenant, limit, cursor)
    items = [_model(member) for member in page.items]
    return MemberPage(items=items, next_cursor=page.next_cursor)


@router.put(
    "/{subject:path}",
    summary="Give a role",
    response_description="The role of the member is set.",
    responses={201: {"model": MemberModel, "description": "The member is new."}}
    | problems(404, 409, 413, 422),
)
async def put_member(
    subject: SubjectPath, body: MemberRequest, response: Response, parts: Parts, caller: Writer
) -> MemberModel:
    """Makes somebody a member, or changes the role of one; it shows within 30 seconds.

    Nobody gives a role that may do more than he himself. The last admin stays one.
    """
    if not is_subject(subject):
        hint = "1 to 255 printable characters."
        fault = Fault("/subject", "bad_name", "No token has this subject.", hint)
        raise Invalid("The request has faults.", [fault])
    refuse_more_than_own(caller, scopes_of(body.role))
    member, is_new = await parts.identity.members.put(caller, subject, body.role)
    if is_new:
        response.status_code = status.HTTP_201_CREATED
    return _model(member)


@router.delete(
    "/{subject:path}",
    summary="Take a role away",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The subject is no member any more.",
    responses=problems(404, 409),
)
async def delete_member(subject: SubjectPath, parts: Parts, caller: Writer) -> None:
    """Makes a member nobody, within 30 seconds; the last admin stays one.

    The API keys that the member has made are revoked, and those that were made with them.
    """
    if not is_subject(subject):
        raise member_not_found(subject)
    await parts.identity.members.delete(caller.tenant, subject)


def _model(member: Member) -> MemberModel:
    return MemberModel.model_validate(member, from_attributes=True)
