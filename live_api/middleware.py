"""Pure ASGI middleware: an id for each request, and a bound on what is read of its body."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foundation.errors import TooLarge
from foundation.ids import new_id

REQUEST_ID_HEADER = "X-Request-ID"

_HEADER = REQUEST_ID_HEADER.lower().encode()
_GIVEN_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")  # nothing that could forge a line of a log
_STATE_KEY = "request_id"


def request_id(connection: HTTPConnection) -> str:
    """The id of this request, as the answer's header and the log have it."""
    return connection.scope["state"][_STATE_KEY]


class RequestId:
    """Gives each request an id, the caller's own where it sent a sane one, and answers with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        identity = given.decode() if _GIVEN_ID.fullmatch(given) else new_id()
        scope.setdefault("state", {})[_STATE_KEY] = identity

        async def send_with_id(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                message["headers"].append((_HEADER, identity.encode()))
            await send(message)

        await self._app(scope, receive, send_with_id)


@dataclass(frozen=True, slots=True)
class Bound:
    """How many bytes of a body are read, and the setting that says so, if there is one."""

    size: int
    setting: str = ""

    def too_large(self) -> TooLarge:
        """The refusal of a longer body."""
        raising = f", or ask the operator to raise {self.setting}" if self.setting else ""
        return TooLarge(
            f"The body is longer than {self.size:,} bytes.", hint=f"Send less{raising}."
        )


class BodyLimit:
    """Raises TooLarge in whoever reads more of a request's body than ``bound_of`` allows.

    A body that says it is longer is refused before any of it is read. After the answer the
    connection is closed, or the server would go on to read the rest and throw it away.
    """

    def __init__(self, app: ASGIApp, bound_of: Callable[[Scope], Bound]) -> None:
        self._app = app
        self._bound_of = bound_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        size = int(declared) if declared.isdecimal() else 0
        received = 0
        bound = self._bound_of(scope)

        async def limited() -> Message:
            nonlocal size, received
            if size <= bound.size:
                message = await receive()
                received += len(message.get("body", b""))
                size = max(size, received)
                if size <= bound.size:
                    return message
            raise bound.too_large()

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and size > bound.size:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, limited, send_and_close)
