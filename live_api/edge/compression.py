"""Answers in zstd or gzip, by starlette-compress. Event streams are left alone.

Figures, against Starlette's own GZipMiddleware, are in docs/edge.md.
"""

import asyncio
from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette_compress import CompressMiddleware, add_compress_type, remove_compress_type

_FROM_BYTES: Final = 1_024
_GZIP_LEVEL: Final = 5  # 9 takes three times as long and saves two per cent
_ZSTD_LEVEL: Final = 1  # faster than 3 by half on big answers, and no bigger
_PIECE_BYTES: Final = 128 * 2**10  # gzip takes 2 ms for it


def compression() -> list[Middleware]:
    """What compresses answers, outermost first."""
    # Compressed, an event would wait for the compressor's next block, and each client would need
    # a compressor of its own, where all of them now share the same bytes.
    remove_compress_type("text/event-stream")
    add_compress_type("application/problem+json")
    compress = Middleware(
        CompressMiddleware,
        minimum_size=_FROM_BYTES,
        zstd_level=_ZSTD_LEVEL,
        gzip_level=_GZIP_LEVEL,
        brotli=False,  # ten times the time of zstd for the same size
    )
    return [compress, Middleware(Pieces)]


class Pieces:
    """Sends a big body in pieces, with other requests' turns in between.

    Compressing takes place on the event loop, for which 64 MiB in one go are a second.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_pieces(message: Message) -> None:
            if len(message.get("body", b"")) <= _PIECE_BYTES:
                await send(message)
                return
            body = memoryview(message["body"])
            for start in range(0, len(body), _PIECE_BYTES):
                piece = bytes(body[start : start + _PIECE_BYTES])
                more = message.get("more_body", False) or start + _PIECE_BYTES < len(body)
                await send({"type": "http.response.body", "body": piece, "more_body": more})
                await asyncio.sleep(0)

        await self._app(scope, receive, send_pieces if scope["type"] == "http" else send)
