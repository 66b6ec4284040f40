"""HEAD for whatever has GET, as RFC 9110 section 9.3.2 wants it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Head:
    """Answers HEAD with the headers of GET.

    The answer is over with its headers: a stream hears that its client has gone.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        # A copy: the server must go on knowing that its answer has no body.
        got = {**scope, "method": "GET"}
        try:
            await self._app(got, receive, send_headers)
        finally:
            scope.update({**got, "method": "HEAD"})  # for those who note which route has answered
