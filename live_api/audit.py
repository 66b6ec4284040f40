"""Pure ASGI middleware: notes every change, done or refused, in the audit log."""

from http import HTTPStatus
from typing import Any, Final, cast

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundation.text import storable
from live_api.audit_log import AuditLog, Entry
from live_api.dependencies import ATTEMPTED
from live_api.edge.callers import CALLER
from live_api.identity import Principal
from live_api.openapi import operation_id

_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_STARTING_RUNS: Final = ("/runs", "/runs/batch", "/fire")
"""Ends of the paths whose answer does not wait for its entry: the runs themselves are on record,
with who started them."""
_LONGEST: Final = 256


class Audit:
    """Notes each request of an unsafe method whose caller is known, before it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _SAFE:
            await self._app(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                await _note(scope, message["status"])
            await send(message)

        await self._app(scope, receive, noted)


async def _note(scope: Scope, status: int) -> None:
    state = scope["state"]
    caller = state.get(ATTEMPTED) or state.get(CALLER)
    if caller is None:
        return
    log: AuditLog = scope["app"].state.services.audit
    entry = _entry(scope, cast("Principal", caller), status)
    path = getattr(scope.get("route"), "path", "")
    if path.endswith(_STARTING_RUNS) and status < HTTPStatus.BAD_REQUEST:
        log.add_later(entry)
    else:
        await log.add(entry)


def _entry(scope: Scope, caller: Principal, status: int) -> Entry:
    route = scope.get("route")
    client = scope.get("client")
    given: dict[str, Any] = scope.get("path_params", {})
    agent = Headers(scope=scope).get("user-agent")
    return Entry(
        tenant=caller.tenant,
        subject=storable(caller.subject, _LONGEST),
        role=caller.role,
        token_id=storable(caller.token_id, _LONGEST),
        action=operation_id(route) if isinstance(route, APIRoute) else scope["method"],
        target={name: storable(str(value), _LONGEST) for name, value in given.items()},
        status=status,
        address=client[0] if client else None,
        request_id=scope["state"]["request_id"],
        user_agent=None if agent is None else storable(agent, _LONGEST),
    )
