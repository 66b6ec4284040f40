"""Who calls: a request's token is verified in one place, before anything else of it is read.

A request without a good token goes on, since some paths are open to all. Whoever asks for its
caller gets the refusal instead, and so does whoever reads its body: a stranger's body is not read.
"""

import re
from typing import Final, cast
from urllib.parse import parse_qsl

import psycopg
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundation.errors import GraphwrightError, Unauthenticated, Unavailable
from foundation.telemetry.context import TENANT
from live_api.identity import Principal, Verifier

CALLER: Final = "caller"
"""Where a connection's state has the Principal, once its token is verified."""
REFUSED: Final = "refused"
"""Where it has the error for whoever asks for the caller, if there is one."""

_SUBPROTOCOL: Final = "bearer."
_STREAM_OF_A_RUN: Final = re.compile(r"/api/v1/runs/[^/]+/(events|ws)")
_WITHOUT_TOKEN: Final = "/api/v1/auth/"  # noqa: S105 - a path
"""Below this a stranger's body is read."""


class Authenticate:
    """Verifies the token of a request, and leaves in its state the caller or the refusal."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        try:
            caller = await _verified(scope)
        except GraphwrightError as error:
            refusal = state[REFUSED] = error
        else:
            state[CALLER] = caller
            TENANT.set(caller.tenant)  # for log lines
            await self._app(scope, receive, send)
            return

        async def refuse() -> Message:
            raise refusal

        is_read = scope["type"] == "websocket" or scope["path"].startswith(_WITHOUT_TOKEN)
        await self._app(scope, receive if is_read else refuse, send)


def caller_of(connection: HTTPConnection) -> Principal:
    """Who calls. Raises Unauthenticated, or what else keeps the token from being taken."""
    state = connection.scope["state"]
    if REFUSED in state:
        raise cast("GraphwrightError", state[REFUSED])
    return cast("Principal", state[CALLER])


def bearer_subprotocol(connection: HTTPConnection) -> str | None:
    """The subprotocol that carries the token, for ``websocket.accept(subprotocol=…)``."""
    return _subprotocol(connection.scope)


async def _verified(scope: Scope) -> Principal:
    verifier = cast("Verifier", scope["app"].state.services.verifier)
    in_query = _token_in_query(scope)
    try:
        caller = await verifier.verify(in_query or _token_of(scope))
    except psycopg.OperationalError as error:  # a provider's subject has its role there
        raise Unavailable("the database does not answer", hint="Try again in a moment.") from error
    if in_query and caller.run_id is None:
        raise Unauthenticated(
            "only a stream token may be part of an address",
            hint="`POST /api/v1/runs/{run_id}/stream-token` makes one.",
        )
    return caller


def _token_in_query(scope: Scope) -> str | None:
    """Of a run's stream only, since browsers cannot set its headers."""
    query: bytes = scope["query_string"]
    if b"token=" not in query or not _STREAM_OF_A_RUN.fullmatch(scope["path"]):
        return None
    return dict(parse_qsl(query.decode("latin-1"))).get("token")


def _token_of(scope: Scope) -> str:
    kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    if subprotocol := _subprotocol(scope):
        return subprotocol.removeprefix(_SUBPROTOCOL)
    raise Unauthenticated(
        "this needs a token",
        hint="Send `Authorization: Bearer TOKEN`; `graphwright token --tenant TENANT` prints one.",
    )


def _subprotocol(scope: Scope) -> str | None:
    offered = cast("list[str]", scope.get("subprotocols", []))
    return next((name for name in offered if name.startswith(_SUBPROTOCOL)), None)
