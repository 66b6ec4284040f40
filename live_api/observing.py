"""Pure ASGI middleware that counts, times and logs each request by its route, never by its path."""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundation.telemetry.context import REQUEST_ID, TRACEPARENT
from foundation.telemetry.logs import ACCESS, struck_out
from foundation.telemetry.metrics import STREAM_CLIENTS, http_answered, http_took
from foundation.telemetry.tracing import sane

_access = logging.getLogger(ACCESS)

_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_UNMATCHED: Final = "unmatched"
_ADDRESS: Final = "address"
"""The path parameter of a webhook. Who knows it may call the webhook, so no log has it."""


class Observe:
    """Stands right inside of :class:`RequestId`, so that it sees every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        # For this request only: the server answers each in a task of its own.
        REQUEST_ID.set(scope["state"]["request_id"])
        TRACEPARENT.set(_traceparent(scope["headers"]))
        status, stream = 500, ""

        async def observed(message: Message) -> None:
            nonlocal status, stream
            match message["type"]:
                case "http.response.start":
                    status = message["status"]
                    if _is_sse(message["headers"]):
                        stream = "sse"
                case "websocket.accept":
                    status, stream = 101, "websocket"
                case "websocket.http.response.start":
                    status = message["status"]
                case "websocket.close" if not stream:
                    status = 403  # as the server answers it
                case _:
                    await send(message)
                    return
            if stream:
                STREAM_CLIENTS.labels(stream).inc()
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            if stream:
                STREAM_CLIENTS.labels(stream).dec()
            _note(scope, status, time.perf_counter() - began, stream=bool(stream))


def _note(scope: Scope, status: int, seconds: float, *, stream: bool) -> None:
    route, method = route_of(scope), scope.get("method", "GET")
    if method not in _METHODS:
        method = "other"  # callers can make up any number of them
    http_answered(route, method, status).inc()
    if not stream:
        http_took(route, method).observe(seconds)
    if _access.isEnabledFor(logging.INFO):
        _access.info(
            "%s %s %d", method, route, status,
            extra={"fields": _fields(scope, method, route, status, seconds)},
        )  # fmt: skip


def _fields(
    scope: Scope, method: str, route: str, status: int, seconds: float
) -> Mapping[str, Any]:
    client, caller = scope.get("client"), scope["state"].get("caller")
    named = {
        name: struck_out(str(value))
        for name, value in scope.get("path_params", {}).items()
        if name != _ADDRESS
    }
    return {
        **named,
        "method": method,
        "route": route,
        "status": status,
        "milliseconds": round(seconds * 1_000, 2),
        "client": client[0] if client else "",
        **({"tenant": caller.tenant, "subject": caller.subject} if caller else {}),
    }


def route_of(scope: Scope) -> str:
    """The template of the route that has answered, such as ``/api/v1/runs/{run_id}``."""
    route = scope.get("route")
    if route is not None:
        return route.path_format
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return _UNMATCHED
    routes: Iterable[Any] = scope["app"].routes
    found = (each for each in routes if isinstance(each, Route) and each.endpoint is endpoint)
    return next((each.path for each in found), _UNMATCHED)


def _is_sse(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in headers
    )


def _traceparent(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"traceparent":
            return sane(value.decode("latin-1"))
    return None
