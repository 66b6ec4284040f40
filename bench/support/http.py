"""A light HTTP/1.1 client: one keep-alive connection, no more parsing than a figure needs.

``httpx`` takes about a millisecond of processor time a request, which on two cores would be
measured together with what it calls.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class HttpError(Exception):
    """An answer that is no success."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """A connection to ``base``, opened by ``async with``; ``headers`` go with each request."""

    def __init__(self, base: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(base)
        assert parts.hostname is not None
        assert parts.port is not None
        self._where = (parts.hostname, parts.port)
        given = {"Host": parts.netloc, **(headers or {})}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._where)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def post(
        self,
        path: str,
        body: bytes,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """A request, ready to be sent any number of times."""
        return self._with_body("POST", path, body, content_type, headers or {})

    def put(self, path: str, body: bytes) -> bytes:
        return self._with_body("PUT", path, body, "application/json", {})

    def get(self, path: str, accept: str = "application/json") -> bytes:
        return f"GET {path} HTTP/1.1\r\n{self._headers}Accept: {accept}\r\n\r\n".encode()

    def _with_body(
        self, method: str, path: str, body: bytes, content_type: str, headers: Mapping[str, str]
    ) -> bytes:
        own = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"{method} {path} HTTP/1.1\r\n{self._headers}{own}"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def send(self, request: bytes) -> Response:
        """Send a request and read its answer whole. Raises HttpError for anything but a success."""
        self._writer.write(request)
        status, head = await self._head()
        if b"transfer-encoding: chunked" in head:
            body = b"".join([chunk async for chunk in self._chunks()])
        else:
            body = await self._reader.readexactly(_length(head))
        if status >= 300:
            raise HttpError(f"{status} {body[:500].decode('utf-8', 'replace')}")
        return Response(status, body)

    async def stream(self, request: bytes) -> AsyncGenerator[bytes]:
        """Send a request and give its answer in pieces as they come; read it to its end."""
        self._writer.write(request)
        status, head = await self._head()
        if status != 200 or b"transfer-encoding: chunked" not in head:
            raise HttpError(f"no stream: {head.decode('latin-1')}")
        async for chunk in self._chunks():
            yield chunk

    async def _head(self) -> tuple[int, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head[9:12]), head.lower()

    async def _chunks(self) -> AsyncGenerator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readuntil(b"\r\n")


def _length(head: bytes) -> int:
    _, found, rest = head.partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0
