"""Every fault as an RFC 9457 problem document, from one place.

    {"type": "urn:graphwright:problem:invalid", "title": "Unprocessable Content", "status": 422,
     "detail": "…", "code": "invalid", "hint": "…", "request_id": "…",
     "errors": [{"pointer": "/nodes/a", "code": "…", "message": "…", "hint": "…"}]}

The ids of an error (which graph, which run) are members beside these. What we did not raise on
purpose says nothing of its cause: that is in the log, under the request's id.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import psycopg
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.status import WS_1011_INTERNAL_ERROR
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from foundation.errors import Fault, GraphwrightError, Invalid, Unavailable
from graph_defs.json_values import pointer
from live_api.middleware import request_id

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)
_TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}  # RFC 9110's, newer than Python's
_MOST_FAULTS = 100  # of a request that one answer names
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}


class ProblemFault(BaseModel):
    """One thing wrong with a document or a request."""

    pointer: str = Field(description="RFC 6901 JSON Pointer to the value; empty for the whole.")
    code: str = Field(description="A stable name of the kind of fault.")
    message: str
    hint: str = Field(description="What to do about it; may be empty.")


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:graphwright:problem:` and the code.")
    title: str = Field(description="The name of the HTTP status.")
    status: int
    detail: str = Field(description="What happened, for people.")
    code: str = Field(description="A stable name of the kind of problem, for programs.")
    hint: str | None = Field(None, description="What to do about it.")
    request_id: str = Field(description="Names this request in the server's log.")
    errors: list[ProblemFault] | None = Field(None, description="Every fault that was found.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's documented problems, for the argument ``responses`` of routers and routes."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": title(status), "content": content} for status in statuses}


def add_problem_handlers(app: FastAPI) -> None:
    """Let ``app`` answer every fault with a problem document; :func:`unforeseen` has the rest."""
    handlers: dict[type[Exception], Callable[..., Any]] = {
        GraphwrightError: _on_our_error,
        RequestValidationError: _on_bad_request,
        WebSocketRequestValidationError: _on_bad_request,
        HTTPException: _on_http_error,
        psycopg.errors.LockNotAvailable: _on_locked,
        psycopg.OperationalError: _on_database_away,
        PoolTimeout: _on_database_away,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def unforeseen() -> Middleware:
    """Answers what nobody foresaw, as the innermost middleware: Starlette's own handler is outside
    of all others, and its answer would lack what they add.
    """
    return Middleware(ServerErrorMiddleware, handler=_on_unforeseen)


async def answer_problem(
    scope: Scope, receive: Receive, send: Send, error: GraphwrightError
) -> None:
    """Answer from middleware, where raising an error would be too early for its handler."""
    if scope["type"] == "websocket":
        await _on_our_error(WebSocket(scope, receive, send), error)
    elif response := await _on_our_error(Request(scope, receive), error):
        await response(scope, receive, send)


async def _on_our_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, GraphwrightError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("request %s: %s", request_id(connection), error, exc_info=error)
    members: dict[str, Any] = dict(error.ids)
    if error.hint:
        members["hint"] = error.hint
    if isinstance(error, Invalid):
        members["errors"] = [fault.as_dict() for fault in error.faults]
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return await _answer(connection, error.status, error.code, error.message, members, headers)


async def _on_bad_request(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    errors = cast("Sequence[Mapping[str, Any]]", error.errors())
    faults = [_fault(each) for each in errors[:_MOST_FAULTS]]
    if len(errors) > _MOST_FAULTS:
        faults.append(Fault("", "too_many_faults", f"And {len(errors) - _MOST_FAULTS:,} more."))
    return await _on_our_error(connection, Invalid("The request has faults.", faults))


def _fault(error: Mapping[str, Any]) -> Fault:
    """Pydantic's fault as ours. Its ``loc`` begins with where the value came from."""
    place, *path = cast("Sequence[str | int]", error["loc"])
    if error["type"] == "json_invalid":
        return Fault("", "bad_syntax", f"The body is not JSON: {error['ctx']['error']}.")
    where = "" if place == "body" else f"{place} parameter: "
    return Fault(pointer(tuple(path)), str(error["type"]), f"{where}{error['msg']}.")


async def _on_http_error(connection: HTTPConnection, error: Exception) -> Response | None:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, GraphwrightError):
        # FastAPI wraps what happens while it reads a body, such as our refusal to read on.
        return await _on_our_error(connection, error.__cause__)
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # FastAPI's, for a body that is no text, or nested too deeply to be read.
        fault = Fault("", "bad_syntax", "The body is not JSON that can be read.")
        return await _on_our_error(connection, Invalid("The request has faults.", [fault]))
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(connection))
    detail = str(error.detail)
    if detail == HTTPStatus(error.status_code).phrase:  # Starlette's default says nothing new
        detail = f"{connection.scope.get('method', 'GET')} {connection.url.path}: {detail.lower()}"
    return await _answer(connection, error.status_code, code, detail, {}, headers)


def _allowed_methods(connection: HTTPConnection) -> Iterator[str]:
    """Of all routes of this path; Starlette names those of the first one."""
    routes = cast("FastAPI", connection.app).router.routes
    for method in _METHODS:
        asked = {**connection.scope, "method": method}
        if any(route.matches(asked)[0] is Match.FULL for route in routes):
            yield from ("GET", "HEAD") if method == "GET" else (method,)


async def _on_locked(connection: HTTPConnection, error: Exception) -> Response | None:
    _log.warning("request %s: a lock was not had in time: %s", request_id(connection), error)
    busy = Unavailable("others are changing the same", hint="Try again in a moment.")
    return await _answer(connection, busy.status, busy.code, busy.message, {"hint": busy.hint})


async def _on_database_away(connection: HTTPConnection, error: Exception) -> Response | None:
    _log.error("request %s: the database does not answer: %s", request_id(connection), error)
    away = Unavailable("the database does not answer", hint="Try again in a moment.")
    return await _answer(connection, away.status, away.code, away.message, {"hint": away.hint})


async def _on_unforeseen(connection: HTTPConnection, _error: Exception) -> Response:
    # Whoever serves the application logs the error itself; Starlette raises it again.
    identity = request_id(connection)
    _log.error("request %s failed", identity)
    detail = "Something went wrong on our side."
    members = {"hint": f"Ask the operator to look for request {identity} in the log."}
    return _problem(connection, 500, "internal", detail, members)


async def _answer(
    connection: HTTPConnection,
    status: int,
    code: str,
    detail: str,
    members: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Response | None:
    response = _problem(connection, status, code, detail, members, headers)
    if not isinstance(connection, WebSocket):
        return response
    if connection.application_state is WebSocketState.CONNECTING:
        await connection.send_denial_response(response)
    elif connection.application_state is WebSocketState.CONNECTED:
        # Too late for a status. RFC 6455 section 7.4.1: 1011 is a fault of ours.
        await connection.close(WS_1011_INTERNAL_ERROR, code)
    return None


def _problem(
    connection: HTTPConnection,
    status: int,
    code: str,
    detail: str,
    members: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
) -> Response:
    content = {
        **members,
        "type": f"urn:graphwright:problem:{code}",
        "title": title(status),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id(connection),
    }
    all_headers = {**_headers(status, connection), **(headers or {})}
    # Half of a surrogate pair, which JSON can name and UTF-8 cannot hold, goes back as it came.
    body = json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace")
    return Response(body, status, all_headers, MEDIA_TYPE)


def _headers(status: int, connection: HTTPConnection) -> dict[str, str]:
    headers: dict[str, str] = {}
    # RFC 6750 section 3: an error only where a token was given.
    if status == HTTPStatus.UNAUTHORIZED:
        error = ', error="invalid_token"' if "authorization" in connection.headers else ""
        headers["WWW-Authenticate"] = f'Bearer realm="graphwright"{error}'
    elif status == HTTPStatus.FORBIDDEN:
        headers["WWW-Authenticate"] = 'Bearer realm="graphwright", error="insufficient_scope"'
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    return headers


def title(status: int) -> str:
    """The name of an HTTP status, as RFC 9110 has it."""
    return _TITLES.get(status) or HTTPStatus(status).phrase
