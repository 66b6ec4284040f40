"""The OpenAPI document: what FastAPI derives from the routes, with our problems and documents."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from graph_defs.document import GraphDocument
from live_api.problems import MEDIA_TYPE, Problem, title

_REFERENCE = "#/components/schemas/{model}"
_PROBLEM: Final = {"schema": {"$ref": _REFERENCE.format(model="Problem")}}
_SECURED: Final = (401, 403, 429, 503)
"""Statuses of whatever asks for a token."""
_WITH_BODY: Final = (413, 422)
_HEADERS: Final = {
    "401": ("WWW-Authenticate", "How to prove who calls, by RFC 6750.", {"type": "string"}),
    "429": ("Retry-After", "Seconds; missing where they are not known.", {"type": "integer"}),
    "503": ("Retry-After", "Seconds.", {"type": "integer"}),
}
_TAGS: Final = {
    "graphs": "What is run: documents, published as versions.",
    "runs": "One execution of a graph's version: start, read, follow, control.",
    "node-types": "What a node of a graph can do, with the schemas of its input and output.",
    "auth": "From an API key to short-lived tokens.",
    "tokens": "API keys.",
    "members": "Who of the identity provider's people may do what in the tenant.",
    "tenants": "What the tenant may use, and what it does use.",
    "audit": "Who changed what, when and from where.",
    "triggers": "What starts runs of a graph besides a request: webhooks and timers.",
    "deliveries": "The inbox of webhooks.",
    "backfills": "A timer's runs for times that are past.",
    "notices": "What the end of a run has set off.",
    "secrets": "Values that graphs use and nobody reads back.",
    "health": "For load balancers; open to all.",
}
_DESCRIPTION: Final = """\
Post graphs, run them, watch them live.

Every fault is an RFC 9457 problem document with a stable `code`. Every answer has an
`X-Request-ID`, which the server's log has too, and, but for health, `RateLimit` and
`RateLimit-Policy`. Lists are pages: send `next_cursor` as `cursor` until it is null.
"""


def operation_id(route: APIRoute) -> str:
    """``<resource>.<verb>``, from a route's tag and the name of its function: ``graphs.list`` of
    ``list_graphs``, ``runs.read_output`` of ``read_output``.
    """
    resource = str(route.tags[0])
    singular = resource[:-3] + "y" if resource.endswith("ies") else resource.removesuffix("s")
    words = [word for word in route.name.split("_") if word not in {resource, singular}]
    return f"{resource}.{'_'.join(words)}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``app``, every fault a problem document."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=_DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/"}],
    )
    _, own = models_json_schema(
        [(Problem, "serialization"), (GraphDocument, "validation")], ref_template=_REFERENCE
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(own["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    used: set[str] = set()
    for path in document["paths"].values():
        for operation in path.values():
            _complete(operation)
            used.update(operation["tags"])
    document["tags"] = [
        {"name": name} | ({"description": _TAGS[name]} if name in _TAGS else {})
        for name in sorted(used)
    ]
    return document


def _complete(operation: dict[str, Any]) -> None:
    """Document what any route may answer, beside what it says itself."""
    responses: dict[str, Any] = operation["responses"]
    expected = _SECURED if "security" in operation else ()
    for status in (*expected, *(_WITH_BODY if "requestBody" in operation else ())):
        responses.setdefault(str(status), {})
    for status, answer in responses.items():
        if status >= "400":
            _as_problem(status, answer)
    operation["responses"] = dict(sorted(responses.items()))


def _as_problem(status: str, answer: dict[str, Any]) -> None:
    answer.update(description=title(int(status)), content={MEDIA_TYPE: _PROBLEM})
    if status in _HEADERS:
        name, description, schema = _HEADERS[status]
        answer.setdefault("headers", {})[name] = {"description": description, "schema": schema}
