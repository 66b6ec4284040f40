"""Graph documents as bodies of requests: JSON or YAML, read and validated off the event loop."""

import asyncio
from typing import Any, Final

from starlette.requests import Request

from foundation.errors import GraphwrightError
from graph_defs.admission import Admission, admit
from graph_defs.fingerprint import canonical
from graph_defs.json_values import JsonObject
from graph_defs.publishing import Publication
from live_api.dependencies import Services
from live_api.identity import Principal

_YAML: Final = ("application/yaml", "text/yaml", "application/x-yaml")
_MEDIA_TYPES: Final = ("application/json", *_YAML)


class UnsupportedMediaType(GraphwrightError):
    """The body is neither JSON nor YAML, or does not say so."""

    code = "unsupported_media_type"
    status = 415


def document_body(schema: dict[str, Any]) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes a document of this schema."""
    content = {media_type: {"schema": schema} for media_type in _MEDIA_TYPES}
    return {"requestBody": {"required": True, "content": content}}


GRAPH_BODY: Final = document_body({"$ref": "#/components/schemas/GraphDocument"})
"""``openapi_extra`` of a route that takes a graph document."""


async def document_of(request: Request) -> bytes:
    """The body of a request that says that it is JSON or YAML. Raises UnsupportedMediaType."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in _MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"a graph cannot be read from {given or 'a body of no named type'}",
            hint=f"Send Content-Type: {' or '.join(_MEDIA_TYPES[:2])}.",
        )
    return await request.body()


async def admitted(parts: Services, source: bytes | str) -> Admission:
    """The document of this text. Raises Invalid with every fault of it, and TooLarge."""
    # A big one takes a while.
    return await asyncio.to_thread(admit, source, parts.catalogue, parts.limits, parts.evaluator)


async def admitted_again(parts: Services, document: JsonObject) -> Admission:
    """A document that is stored, if it is valid still. Raises as :func:`admitted`."""

    def admit_again() -> Admission:
        return admit(canonical(document), parts.catalogue, parts.limits, parts.evaluator)

    return await asyncio.to_thread(admit_again)


def publication(parts: Services, caller: Principal, admission: Admission) -> Publication:
    """What the caller publishes."""
    return Publication(admission.given, node_types(parts, admission), caller.subject)


def node_types(parts: Services, admission: Admission) -> dict[str, int]:
    """The node types that the document uses, and their versions."""
    used = {node.type for node in admission.graph.nodes.values()}
    return {name: parts.catalogue[name].version for name in sorted(used)}
