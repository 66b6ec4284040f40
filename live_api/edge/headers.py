"""What browsers are told about every answer, and what every answer says of itself."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_Header = tuple[bytes, bytes]

_ALWAYS: Final[tuple[_Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_UNLESS_SET: Final[dict[bytes, bytes]] = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
_TWO_YEARS: Final = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})


class SecurityHeaders:
    """Adds the headers of docs/edge.md to every answer.

    A route may set ``Content-Security-Policy`` and ``Cache-Control`` itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _STARTS:
                headers: list[_Header] = message["headers"]
                given = {name for name, _ in headers}
                headers += [each for each in _UNLESS_SET.items() if each[0] not in given]
                headers += _ALWAYS
                if scope["scheme"] in {"https", "wss"}:
                    headers.append(_TWO_YEARS)
            await send(message)

        await self._app(scope, receive, send_with_headers)
