"""Drafts: what an author works on before it is published."""

import asyncio
from datetime import datetime
from typing import Final

from fastapi import Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from foundation.errors import Fault, NotFound
from graph_defs.drafts import DraftCheck
from graph_defs.fingerprint import Canonical
from graph_defs.parsing import parse
from graph_defs.validation import find_faults, invalid
from graph_defs.versions import Draft
from live_api.conditional import (
    READ_TAGGED,
    TAGGED,
    IfMatch,
    IfNone,
    IfNoneMatch,
    check,
    etag,
    not_modified,
    tag_headers,
)
from live_api.dependencies import GraphPath
from live_api.documents import admitted_again, document_body, document_of, publication
from live_api.graphs import PREFIX, GraphModel, Parts, Reader, Writer, answered
from live_api.problems import ProblemFault, problems
from live_api.routing import api_router

router = api_router(PREFIX + "/{graph}", "graphs", 401, 403, 404, 503)

_ANY_OBJECT: Final = {"type": "object", "description": "A graph document, which may have faults."}


class DraftModel(BaseModel):
    """A graph's draft."""

    model_config = ConfigDict(from_attributes=True)

    graph_id: str
    name: str = Field(description="The graph's name.")
    published_version: int = Field(description="The graph's published version just now, or 0.")
    fingerprint: str = Field(description="SHA-256 of the document's RFC 8785 JSON, in hex.")
    author: str = Field(description="Who changed it last.")
    created_at: datetime
    updated_at: datetime


class CheckedDraft(DraftModel):
    """A draft that was stored, and what keeps it from being published."""

    errors: list[ProblemFault] = Field(description="Every fault; none: it can be published.")


class DraftDetail(DraftModel):
    """A draft with its document."""

    document: dict[str, JsonValue] = Field(description="The document, as it was given.")


@router.put(
    "/draft",
    summary="Create or replace a graph's draft",
    responses={
        200: TAGGED,
        201: {"model": CheckedDraft, "description": "There was no draft before.", **TAGGED},
        **problems(412, 413, 415, 422, 429),
    },
    openapi_extra=document_body(_ANY_OBJECT),
)
async def put_draft(
    graph: GraphPath,
    request: Request,
    response: Response,
    parts: Parts,
    caller: Writer,
    if_match: IfMatch = None,
    if_none_match: IfNone = None,
) -> CheckedDraft:
    """Stores a document that may have faults, and says which. What is published does not change.

    A graph that there is not yet is made, without a published version.
    """
    source = await document_of(request)

    def read() -> tuple[Canonical, list[Fault]]:
        document = parse(source, parts.limits)
        faults = find_faults(document, parts.catalogue, parts.limits, parts.evaluator)
        return Canonical.of(document), faults

    given, faults = await asyncio.to_thread(read)
    draft, created = await parts.drafts.put(
        caller.tenant, graph, given, caller.subject, _checking(if_match, if_none_match)
    )
    if created:
        response.status_code = status.HTTP_201_CREATED
    response.headers.update(tag_headers(draft_etag(draft)))
    members = DraftModel.model_validate(draft).model_dump()
    errors = [ProblemFault(**fault.as_dict()) for fault in (*_misnamed(draft), *faults)]
    return CheckedDraft(**members, errors=errors)


@router.get(
    "/draft",
    summary="Read a graph's draft",
    response_model=DraftDetail,
    responses=READ_TAGGED,
)
async def read_draft(
    graph: GraphPath,
    response: Response,
    parts: Parts,
    caller: Reader,
    if_none_match: IfNoneMatch = None,
) -> DraftDetail | Response:
    """The draft with its document."""
    draft = await parts.drafts.get(caller.tenant, graph)
    tag = draft_etag(draft)
    if (known := not_modified(if_none_match, tag)) is not None:
        return known
    response.headers.update(tag_headers(tag))
    return DraftDetail.model_validate(draft)


@router.delete(
    "/draft",
    summary="Throw a graph's draft away",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(412),
)
async def delete_draft(
    graph: GraphPath, parts: Parts, caller: Writer, if_match: IfMatch = None
) -> None:
    """The published version stays as it is."""
    await parts.drafts.delete(caller.tenant, graph, _checking(if_match))


@router.post(
    "/publish",
    summary="Publish a graph's draft",
    status_code=status.HTTP_201_CREATED,
    response_description="A new version was made.",
    responses={
        200: {
            "model": GraphModel,
            "description": "The document was a version of the graph already.",
            **TAGGED,
        },
        201: TAGGED,
        **problems(409, 412, 422),
    },
)
async def publish_draft(
    graph: GraphPath, response: Response, parts: Parts, caller: Writer, if_match: IfMatch = None
) -> GraphModel:
    """Makes the draft the published version; there is no draft afterwards.

    `If-Match` is the draft's ETag: it changes with the draft and with what is published beside it.
    """
    checked = _checking(if_match)
    try:
        draft = await parts.drafts.get(caller.tenant, graph)
    except NotFound:
        await parts.store.get(caller.tenant, graph)
        checked(None)
        raise
    checked(draft)
    if faults := _misnamed(draft):
        raise invalid(faults)
    admission = await admitted_again(parts, draft.document)
    given = publication(parts, caller, admission)
    published, created = await parts.drafts.publish(draft, given, checked)
    if not created:
        response.status_code = status.HTTP_200_OK
    return answered(response, published)


def draft_etag(draft: Draft) -> str:
    """The ETag of a draft's present state."""
    return etag(draft.graph_id, draft.fingerprint, draft.updated_at, draft.published_version)


def _checking(if_match: str | None, if_none_match: str | None = None) -> DraftCheck:
    def checked(draft: Draft | None) -> None:
        check(if_match, if_none_match, None if draft is None else draft_etag(draft))

    return checked


def _misnamed(draft: Draft) -> list[Fault]:
    metadata = draft.document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if name is None or name == draft.name:
        return []
    return [
        Fault(
            "/metadata/name",
            "other_name",
            f"The graph's name is {draft.name!r}.",
            "A graph keeps its name; make another graph under the other one.",
        )
    ]
