"""Node types: what nodes of a graph can be."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Path, Response
from pydantic import BaseModel, Field

from foundation.errors import NotFound
from graph_defs.catalogue import AnyNodeType
from graph_defs.suggestions import Suggester
from live_api.conditional import READ_TAGGED, IfNoneMatch, etag, not_modified, tag_headers
from live_api.dependencies import Services, require, services
from live_api.identity import Principal
from live_api.problems import problems
from live_api.routing import api_router
from node_types.base import Effects, RunsOn

router = api_router("/api/v1/node-types", "node-types", 401, 403, 503)

Parts = Annotated[Services, Depends(services)]
Reader = Annotated[Principal, Depends(require("graphs:read"))]


class NodeTypeModel(BaseModel):
    """A node type."""

    type: str = Field(description="What a node's `type` says.")
    version: int = Field(description="Higher when the same `with` means something else.")
    description: str
    effects: Effects = Field(
        description="`external`: it changes, or may change, something outside."
    )
    runs_on: RunsOn
    secret_fields: Sequence[str] = Field(description="Where in `with` secrets may stand.")


class NodeTypeDetail(NodeTypeModel):
    """A node type with its schemas, by JSON Schema 2020-12."""

    with_schema: dict[str, Any] = Field(description="Of `with`, after expressions are evaluated.")
    output_schema: dict[str, Any] = Field(description="Of the node's output.")


class NodeTypePage(BaseModel):
    """All node types, in alphabetical order."""

    items: list[NodeTypeModel]
    next_cursor: None = Field(default=None, description="There is no further page.")


@router.get("", name="list", summary="List node types", response_model=NodeTypePage,
            responses=READ_TAGGED)  # fmt: skip
async def list_node_types(
    response: Response, parts: Parts, _caller: Reader, if_none_match: IfNoneMatch = None
) -> NodeTypePage | Response:
    """What this installation has, at once."""
    tag = etag(*parts.catalogue.versions().items())
    if (known := not_modified(if_none_match, tag)) is not None:
        return known
    response.headers.update(tag_headers(tag))
    return NodeTypePage(
        items=[NodeTypeModel(**_members(each)) for each in parts.catalogue.values()]
    )


@router.get("/{type}", name="read", summary="Read a node type", response_model=NodeTypeDetail,
            responses=READ_TAGGED | problems(404))  # fmt: skip
async def read_node_type(
    name: Annotated[str, Path(alias="type", description="The node type, such as `http.request`.")],
    response: Response,
    parts: Parts,
    _caller: Reader,
    if_none_match: IfNoneMatch = None,
) -> NodeTypeDetail | Response:
    """One node type, with the JSON Schemas of what it takes and gives."""
    node_type = parts.catalogue.get(name)
    if node_type is None:
        close = Suggester().did_you_mean(name, list(parts.catalogue))
        hint = close or "`GET /api/v1/node-types` lists them."
        raise NotFound(f"there is no node type {name}", hint=hint, type=name)
    tag = etag(node_type.name, node_type.version)
    if (known := not_modified(if_none_match, tag)) is not None:
        return known
    response.headers.update(tag_headers(tag))
    return NodeTypeDetail(
        **_members(node_type),
        with_schema=node_type.With.model_json_schema(mode="validation"),
        output_schema=node_type.Output.model_json_schema(mode="serialization"),
    )


def _members(node_type: AnyNodeType) -> dict[str, Any]:
    return {
        "type": node_type.name,
        "version": node_type.version,
        "description": (type(node_type).__doc__ or "").strip(),
        "effects": node_type.effects,
        "runs_on": node_type.runs_on,
        "secret_fields": sorted(node_type.secret_fields),
    }
