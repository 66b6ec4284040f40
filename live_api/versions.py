"""A graph's versions: list, read, roll back, compare."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from foundation.ids import TenantId
from graph_defs.diff import diff
from graph_defs.json_values import JsonObject
from live_api.bodies import Body
from live_api.conditional import (
    READ_TAGGED,
    TAGGED,
    IfMatch,
    IfNoneMatch,
    etag,
    not_modified,
    tag_headers,
)
from live_api.dependencies import GraphPath, Services
from live_api.documents import admitted_again, publication
from live_api.graphs import PREFIX, GraphModel, Parts, Reader, Writer, answered, checking
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router

router = api_router(PREFIX + "/{graph}", "graphs", 401, 403, 404, 503)

_DRAFT: Final = "draft"
_LAST: Final = 2**31 - 1
_SIDE: Final = "^([1-9][0-9]{0,9}|draft)$"

VersionNumber = Annotated[int, Field(ge=1, le=_LAST)]


class VersionModel(BaseModel):
    """A version of a graph. It never changes."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    fingerprint: str = Field(description="SHA-256 of the document's RFC 8785 JSON, in hex.")
    author: str
    created_at: datetime


class VersionDetail(VersionModel):
    """A version with its document."""

    graph_id: str
    name: str
    node_types: Mapping[str, int] = Field(
        description="The node types it uses, and their versions when it was first published."
    )
    document: dict[str, JsonValue]


class VersionPage(BaseModel):
    """Some of a graph's versions, newest first."""

    items: list[VersionModel]
    next_cursor: NextCursor


class RollbackRequest(Body):
    """Which version to publish again."""

    version: VersionNumber


class NodeChangesModel(BaseModel):
    """Ids of nodes, in alphabetical order."""

    model_config = ConfigDict(from_attributes=True)

    added: list[str]
    removed: list[str]
    changed: list[str]


class DiffModel(BaseModel):
    """What changes from one document of a graph to another."""

    old: str = Field(serialization_alias="from", description="A version, or `draft`.")
    new: str = Field(serialization_alias="to", description="A version, or `draft`.")
    patch: list[dict[str, Any]] = Field(
        description="RFC 6902 JSON Patch that makes the second document of the first. Arrays with "
        "more than 1,000 values are replaced as a whole."
    )
    nodes: NodeChangesModel


@router.get("/versions", summary="List a graph's versions", responses=problems(422))
async def list_versions(
    graph: GraphPath,
    parts: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200, description="Versions of one page.")] = 50,
    cursor: Cursor = None,
) -> VersionPage:
    """All versions that were ever published, newest first."""
    graph_id = (await parts.store.get(caller.tenant, graph)).graph_id
    page = await parts.store.versions(caller.tenant, graph_id, limit, cursor)
    items = [VersionModel.model_validate(version) for version in page.items]
    return VersionPage(items=items, next_cursor=page.next_cursor)


@router.get(
    "/versions/{version}",
    summary="Read a version",
    response_model=VersionDetail,
    responses=READ_TAGGED | problems(422),
)
async def read_version(
    graph: GraphPath,
    version: Annotated[int, Path(ge=1, le=_LAST, description="The version's number.")],
    response: Response,
    parts: Parts,
    caller: Reader,
    if_none_match: IfNoneMatch = None,
) -> VersionDetail | Response:
    """One version with its document, as it was given."""
    graph_id = (await parts.store.get(caller.tenant, graph)).graph_id
    found = await parts.store.version(caller.tenant, graph_id, version)
    tag = etag(graph_id, version)
    if (known := not_modified(if_none_match, tag)) is not None:
        return known
    response.headers.update(tag_headers(tag))
    return VersionDetail.model_validate(found, from_attributes=True)


@router.post(
    "/rollback",
    summary="Publish an earlier version again",
    responses={200: TAGGED, **problems(412, 422)},
)
async def roll_back(
    graph: GraphPath,
    body: RollbackRequest,
    response: Response,
    parts: Parts,
    caller: Writer,
    if_match: IfMatch = None,
) -> GraphModel:
    """Makes this version the published one, with the triggers and labels that it has.

    It is validated again: what was valid once may name a node type that is gone.
    """
    graph_id = (await parts.store.get(caller.tenant, graph)).graph_id
    version = await parts.store.version(caller.tenant, graph_id, body.version)
    admission = await admitted_again(parts, version.document)
    given = publication(parts, caller, admission)
    return answered(response, await parts.store.republish(version, given, checking(if_match)))


@router.get("/diff", summary="Compare two versions", responses=problems(409, 422))
async def diff_versions(
    graph: GraphPath,
    parts: Parts,
    caller: Reader,
    old: Annotated[
        str | None,
        Query(
            alias="from",
            pattern=_SIDE,
            description="A version, or `draft`; without it the published version.",
        ),
    ] = None,
    new: Annotated[
        str, Query(alias="to", pattern=_SIDE, description="A version, or `draft`.")
    ] = _DRAFT,
) -> DiffModel:
    """What changes from one to the other, as a JSON Patch and by nodes."""
    if old is None:
        old = str((await parts.store.published(caller.tenant, graph)).version)
    before = await _document(parts, caller.tenant, graph, old)
    after = await _document(parts, caller.tenant, graph, new)
    found = await asyncio.to_thread(diff, before, after)
    nodes = NodeChangesModel.model_validate(found.nodes)
    return DiffModel(old=old, new=new, patch=found.patch, nodes=nodes)


async def _document(parts: Services, tenant: TenantId, graph: str, side: str) -> JsonObject:
    if side == _DRAFT:
        return (await parts.drafts.get(tenant, graph)).document
    graph_id = (await parts.store.get(tenant, graph)).graph_id
    return (await parts.store.version(tenant, graph_id, min(int(side), _LAST))).document
