"""What the webhook receiver answers. Faults are RFC 9457 problems that say the same to everybody:
whoever calls without the right secret learns nothing of why, and nothing of ours.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
import psycopg
from fastapi import FastAPI
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from foundation.errors import GraphwrightError, TooLarge
from live_api.middleware import request_id
from live_api.problems import MEDIA_TYPE, title

_log = logging.getLogger(__name__)

_AWAY_SECONDS: Final = 5
_FAULTS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("not_proven", "The call does not prove who sent it."),
    404: ("not_found", "There is nothing here."),
    405: ("method_not_allowed", "Webhooks are called with POST."),
    408: ("too_slow", "The body took too long to come."),
    413: ("too_large", "The body is too long."),
    414: ("too_large", "The query is too long."),
    415: ("unsupported_media_type", "The body is JSON, a form or text, and not compressed."),
    429: ("too_many_calls", "Try again later."),
    431: ("too_large", "The headers are too long."),
    500: ("internal", "Something went wrong on our side."),
    503: ("unavailable", "Try again in a moment."),
}


def refusal(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The problem document of a status."""
    code, detail = _FAULTS.get(status, ("http_error", title(status)))
    problem = {
        "type": f"urn:graphwright:problem:{code}",
        "title": title(status),
        "status": status,
        "detail": detail,
        "code": code,
    }
    sent = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = 'Webhook realm="graphwright"'  # RFC 9110 wants one
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        sent.setdefault("Retry-After", str(_AWAY_SECONDS))
    elif status == HTTPStatus.REQUEST_TIMEOUT:
        sent["Connection"] = "close"
    return Response(orjson.dumps(problem), status, sent, MEDIA_TYPE)


def success(status: int, content: Any) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def add_fault_handlers(app: FastAPI) -> None:
    """Let ``app`` answer every fault with :func:`refusal`."""
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(TooLarge, _on_too_large)
    for kind in (GraphwrightError, psycopg.OperationalError, PoolTimeout):
        app.add_exception_handler(kind, _on_unavailable)
    app.add_exception_handler(Exception, _on_unforeseen)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, error.headers)


async def _on_too_large(_request: Request, _error: Exception) -> Response:
    return refusal(413)


async def _on_unavailable(request: Request, error: Exception) -> Response:
    _log.error("call %s cannot be taken: %s", request_id(request), error, exc_info=error)
    return refusal(503)


async def _on_unforeseen(request: Request, _error: Exception) -> Response:
    # Whoever serves the application logs the error itself; Starlette raises it again.
    _log.error("call %s failed", request_id(request))
    return refusal(500)
