"""Answers that are made without FastAPI, which takes longer to check one than we do to give it."""

from collections.abc import Mapping

from fastapi import Response, status
from pydantic import BaseModel


def json_answer(
    answer: BaseModel,
    headers: Mapping[str, str] | None = None,
    status_code: int = status.HTTP_200_OK,
    *,
    stored: Mapping[str, str] | None = None,
) -> Response:
    """The model as JSON. Say what it is to OpenAPI by the route's ``response_model``.

    ``stored`` are more members, after those of the model, whose values are JSON text already.
    """
    text = answer.model_dump_json(by_alias=True)
    for name, value in (stored or {}).items():
        text = f'{text[:-1]},"{name}":{value}}}'
    return Response(text, status_code, headers, media_type="application/json")
