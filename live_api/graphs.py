"""Graphs: publish, list, read."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response, status
from pydantic import BaseModel, Field, JsonValue

from foundation.errors import GraphwrightError
from graph_defs.admission import admit
from graph_defs.versions import Graph
from live_api.auth import Principal
from live_api.dependencies import Services, require, services
from live_api.problems import problems

PREFIX = "/api/v1/graphs"

router = APIRouter(prefix=PREFIX, tags=["graphs"], responses=problems(401, 403, 503))

_YAML = ("application/yaml", "text/yaml", "application/x-yaml")
_MEDIA_TYPES = ("application/json", *_YAML)
_DOCUMENT = {"schema": {"$ref": "#/components/schemas/GraphDocument"}}

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("graphs:read"))]
Writer = Annotated[Principal, Depends(require("graphs:write"))]


class UnsupportedMediaType(GraphwrightError):
    """The body is neither JSON nor YAML, or does not say so."""

    code = "unsupported_media_type"
    status = 415


class GraphModel(BaseModel):
    """A graph, as its published version has it."""

    graph_id: str
    name: str
    version: int = Field(description="The published version; the first is 1.")
    fingerprint: str = Field(description="SHA-256 of the document's RFC 8785 JSON, in hex.")
    description: str
    labels: Mapping[str, str]
    created_at: datetime
    updated_at: datetime = Field(description="When a version was last published.")


class GraphDetail(GraphModel):
    """A graph with its document."""

    document: dict[str, JsonValue] = Field(description="The published document, as it was given.")


class GraphPage(BaseModel):
    """Some of the tenant's graphs, newest first."""

    items: list[GraphModel]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page.")


@router.post(
    "",
    summary="Create or update a graph, and publish it",
    status_code=status.HTTP_201_CREATED,
    response_description="A new version was made.",
    responses={
        200: {
            "model": GraphModel,
            "description": "The document was a version of the graph already.",
        },
        **problems(413, 415, 422),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": dict.fromkeys(_MEDIA_TYPES, _DOCUMENT)}
    },
)
async def publish(request: Request, response: Response, parts: Parts, caller: Writer) -> GraphModel:
    """Publishes the document under its `metadata.name`, as a new version unless it is one already.

    An invalid document gets every fault in one answer.
    """
    _check_media_type(request)
    source = await request.body()
    # A big document takes a while: not on the event loop.
    admitted = await asyncio.to_thread(
        admit, source, parts.catalogue, parts.limits, parts.evaluator
    )
    used = {node.type for node in admitted.graph.nodes.values()}
    node_types = {name: parts.catalogue[name].version for name in used}
    graph, created = await parts.store.apply(
        caller.tenant, admitted.document, admitted.fingerprint, node_types, caller.subject
    )
    response.headers["Location"] = f"{PREFIX}/{graph.graph_id}"
    if not created:
        response.status_code = status.HTTP_200_OK
    return GraphModel(**_members(graph))


@router.get("", summary="List graphs", responses=problems(422))
async def list_graphs(
    parts: Parts,
    caller: Reader,
    limit: Annotated[int, Query(ge=1, le=200, description="Graphs of one page.")] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> GraphPage:
    """The tenant's graphs, newest first."""
    page = await parts.store.list(caller.tenant, limit, cursor)
    items = [GraphModel(**_members(graph)) for graph in page.items]
    return GraphPage(items=items, next_cursor=page.next_cursor)


@router.get("/{graph}", summary="Read a graph", responses=problems(404))
async def read_graph(graph: str, parts: Parts, caller: Reader) -> GraphDetail:
    """One graph by its id or name, with the published document."""
    found = await parts.store.get(caller.tenant, graph)
    version = await parts.store.version(caller.tenant, found.graph_id, found.version)
    return GraphDetail(**_members(found), document=version.document)


def _check_media_type(request: Request) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in _MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"a graph cannot be read from {given or 'a body of no named type'}",
            hint=f"Send Content-Type: {' or '.join(_MEDIA_TYPES[:2])}.",
        )


def _members(graph: Graph) -> dict[str, Any]:
    members = asdict(graph)
    del members["tenant"]
    return members
