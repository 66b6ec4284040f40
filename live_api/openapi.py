"""The OpenAPI document: what FastAPI derives from the routes, with our problems and documents."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from graph_defs.document import GraphDocument
from live_api.problems import MEDIA_TYPE, Problem

_REFERENCE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``app``, every fault a problem document."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    _, own = models_json_schema(
        [(Problem, "serialization"), (GraphDocument, "validation")], ref_template=_REFERENCE
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(own["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in document["paths"].values():
        for operation in path.values():
            _use_problems(operation)
    return document


def _use_problems(operation: dict[str, Any]) -> None:
    """Where FastAPI documents its own answer to an invalid request, name ours."""
    answer = operation.get("responses", {}).get("422")
    if answer is not None:
        schema = {"$ref": _REFERENCE.format(model="Problem")}
        answer.update(description="Unprocessable Content", content={MEDIA_TYPE: {"schema": schema}})
