"""Graphs: publish, validate, list, read, delete, pause."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from dynamic_jobs.controlling.graphs import pause_graph, resume_graph
from foundation.database import Connection
from foundation.ids import GraphId, TenantId
from graph_defs.publishing import Check
from graph_defs.versions import Graph
from live_api.answers import json_answer
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
    tagged,
)
from live_api.dependencies import GraphPath, Services, require, services
from live_api.documents import GRAPH_BODY, admitted, document_of, node_types, publication
from live_api.identity import Principal
from live_api.labels import Labels, label_pairs
from live_api.paging import Cursor, NextCursor
from live_api.problems import problems
from live_api.routing import api_router

PREFIX: Final = "/api/v1/graphs"

router = api_router(PREFIX, "graphs", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("graphs:read"))]
Writer = Annotated[Principal, Depends(require("graphs:write"))]
Operator = Annotated[Principal, Depends(require("runs:write"))]

_LOCATED: Final = {
    "Location": {"description": "The graph, as a path of this API.", "schema": {"type": "string"}}
}


class GraphModel(BaseModel):
    """A graph, as its published version has it."""

    model_config = ConfigDict(from_attributes=True)

    graph_id: str
    name: str
    version: int = Field(description="The published version; the first is 1. 0: none is.")
    fingerprint: str | None = Field(
        description="SHA-256 of the published document's RFC 8785 JSON, in hex."
    )
    description: str
    labels: Mapping[str, str]
    created_at: datetime
    updated_at: datetime = Field(description="When a version was last published.")
    paused: bool = Field(description="Whether its runs stay queued until it is resumed.")


class GraphDetail(GraphModel):
    """A graph with its document."""

    document: dict[str, JsonValue] | None = Field(
        description="The published document, as it was given; null while none is published."
    )


class GraphPage(BaseModel):
    """Some of the tenant's graphs, newest first."""

    items: list[GraphModel]
    next_cursor: NextCursor


class ValidatedModel(BaseModel):
    """A document without faults."""

    valid: bool = Field(description="Always true: a document with faults is answered with 422.")
    name: str
    fingerprint: str = Field(description="SHA-256 of the document's RFC 8785 JSON, in hex.")
    nodes: list[str] = Field(description="Its nodes, in the document's order.")
    node_types: Mapping[str, int] = Field(description="The node types it uses, and their versions.")


@router.post(
    "",
    summary="Create or update a graph, and publish it",
    status_code=status.HTTP_201_CREATED,
    response_description="A new version was made.",
    responses={
        200: {
            "model": GraphModel,
            "description": "The document was a version of the graph already.",
            "headers": {**TAGGED["headers"], **_LOCATED},
        },
        201: {"headers": {**TAGGED["headers"], **_LOCATED}},
        **problems(412, 413, 415, 422, 429),
    },
    openapi_extra=GRAPH_BODY,
)
async def publish_graph(
    request: Request,
    response: Response,
    parts: Parts,
    caller: Writer,
    if_match: IfMatch = None,
    if_none_match: IfNone = None,
) -> GraphModel:
    """Publishes the document under its `metadata.name`, as a new version unless it is one already.

    An invalid document gets every fault in one answer.
    """
    admission = await admitted(parts, await document_of(request))
    given = publication(parts, caller, admission)
    graph, created = await parts.store.apply(
        caller.tenant, given, checking(if_match, if_none_match)
    )
    response.headers["Location"] = f"{PREFIX}/{graph.graph_id}"
    if not created:
        response.status_code = status.HTTP_200_OK
    return answered(response, graph)


@router.post(
    "/validate",
    summary="Validate a document",
    responses=problems(413, 415, 422),
    openapi_extra=GRAPH_BODY,
)
async def validate_graph(request: Request, parts: Parts, _caller: Reader) -> ValidatedModel:
    """Says what `POST /graphs` would say to the document, and stores nothing."""
    admission = await admitted(parts, await document_of(request))
    return ValidatedModel(
        valid=True,
        name=admission.graph.metadata.name,
        fingerprint=admission.given.fingerprint,
        nodes=list(admission.graph.nodes),
        node_types=node_types(parts, admission),
    )


@router.get("", summary="List graphs", response_model=GraphPage, responses=problems(422))
async def list_graphs(
    parts: Parts,
    caller: Reader,
    label: Labels = (),
    limit: Annotated[int, Query(ge=1, le=200, description="Graphs of one page.")] = 50,
    cursor: Cursor = None,
) -> Response:
    """The tenant's graphs, newest first."""
    page = await parts.store.list(caller.tenant, limit, cursor, label_pairs(label))
    items = [GraphModel.model_validate(graph) for graph in page.items]
    return json_answer(GraphPage(items=items, next_cursor=page.next_cursor))


@router.get(
    "/{graph}",
    summary="Read a graph",
    response_model=GraphDetail,
    responses=READ_TAGGED | problems(404),
)
async def read_graph(
    graph: GraphPath, parts: Parts, caller: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """One graph by its id or name, with the published document."""
    found = await parts.store.get(caller.tenant, graph)
    tag = graph_etag(found)
    if (known := not_modified(if_none_match, tag)) is not None:
        return known
    document = await _published_document(parts, found) if found.version else "null"
    return tagged(GraphModel.model_validate(found), tag, {"document": document})


@router.delete(
    "/{graph}",
    summary="Delete a graph",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problems(404, 409, 412),
)
async def delete_graph(
    graph: GraphPath, parts: Parts, caller: Writer, if_match: IfMatch = None
) -> None:
    """Deletes a graph all of whose runs have ended, with its triggers and its draft.

    Its runs can still be read, and its name is free again.
    """
    graph_id = await parts.store.delete(caller.tenant, graph, checking(if_match))
    await parts.published.forget(caller.tenant, graph_id)


@router.post(
    "/{graph}/pause",
    summary="Pause a graph",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The graph is paused.",
    responses={202: TAGGED, **problems(404)},
)
async def pause(graph: GraphPath, response: Response, parts: Parts, caller: Operator) -> GraphModel:
    """Its runs stay queued, those that are triggered from now on too. Those under way go on."""
    return await _set_paused(parts, caller, response, graph, pause_graph)


@router.post(
    "/{graph}/resume",
    summary="Resume a graph",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The graph is not paused any more.",
    responses={202: TAGGED, **problems(404)},
)
async def resume(
    graph: GraphPath, response: Response, parts: Parts, caller: Operator
) -> GraphModel:
    """Its runs start again, in their order."""
    return await _set_paused(parts, caller, response, graph, resume_graph)


async def _published_document(parts: Services, graph: Graph) -> str:
    async def read() -> str:
        return await parts.store.document(graph.tenant, graph.graph_id, graph.version)

    return await parts.published.document(graph.tenant, graph.graph_id, graph.version, read)


def graph_etag(graph: Graph) -> str:
    """The ETag of a graph's present state."""
    return etag(graph.graph_id, graph.version, graph.updated_at, graph.paused)


def checking(if_match: str | None, if_none_match: str | None = None) -> Check | None:
    """What the store calls before it changes a graph, if there is a condition at all."""
    if if_match is None and if_none_match is None:
        return None

    def checked(graph: Graph | None) -> None:
        check(if_match, if_none_match, None if graph is None else graph_etag(graph))

    return checked


def answered(response: Response, graph: Graph) -> GraphModel:
    """The answer to a change of a graph."""
    response.headers.update(tag_headers(graph_etag(graph)))
    return GraphModel.model_validate(graph)


async def _set_paused(
    parts: Services,
    caller: Principal,
    response: Response,
    graph: str,
    change: Callable[[Connection, TenantId, GraphId], None],
) -> GraphModel:
    graph_id = (await parts.store.get(caller.tenant, graph)).graph_id

    def work() -> None:
        with parts.blocking_pool.connection(caller.tenant) as connection:
            change(connection, caller.tenant, graph_id)

    await asyncio.to_thread(work)
    return answered(response, await parts.store.get(caller.tenant, graph_id))
