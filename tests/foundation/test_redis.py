"""Redis by TLS, and what is said where it is not."""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import pytest
import redis

from foundation.redis import async_redis, goes_in_clear, sync_redis
from foundation.settings import Settings
from tests.certificates import certified

CLEAR = ("redis://redis.example.org", "redis://:p@10.0.0.7:6379/1", "redis://[2001:db8::1]")
NOT_CLEAR = (
    "rediss://redis.example.org", "unix:///run/redis.sock", "redis://localhost:1", "redis://",
    "redis://:p@127.0.0.1:6379", "redis://[::1]:6379",
)  # fmt: skip


def test_what_goes_in_clear() -> None:
    assert [url for url in (*CLEAR, *NOT_CLEAR) if goes_in_clear(url)] == list(CLEAR)


@pytest.mark.parametrize("url", [CLEAR[0], NOT_CLEAR[0]])
def test_it_is_said_at_the_start(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "foundation.redis"):
        async_redis(url)
    assert ["in clear" in each for each in caplog.messages] == [True] * goes_in_clear(url)


@pytest.mark.anyio
async def test_redis_by_tls(settings: Settings, tmp_path: Path) -> None:
    files = certified(tmp_path)
    parts = urlsplit(settings.redis_url)
    async with by_tls(parts, files.server()) as port:
        whose = parts.netloc[: parts.netloc.rfind("@") + 1]
        url = f"rediss://{whose}127.0.0.1:{port}/?{parts.query}&ssl_ca_certs={files.authority}"
        async with async_redis(url) as client:
            assert await client.set("a", "1")

        def get() -> object:
            with sync_redis(url) as client:
                return client.get("a")

        assert await asyncio.to_thread(get) == "1"
        async with async_redis(f"rediss://127.0.0.1:{port}") as stranger:
            with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("a")


@asynccontextmanager
async def by_tls(parts: SplitResult, tls: ssl.SSLContext) -> AsyncGenerator[int]:
    """A port on loopback with TLS before this Redis: the Valkey of our wheel has none."""

    async def relay(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if parts.scheme == "unix":
            far, on = await asyncio.open_unix_connection(unquote(parts.path))
        else:
            far, on = await asyncio.open_connection(parts.hostname, parts.port or 6379)
        await asyncio.gather(pump(near, on), pump(far, back))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what comes, and its end."""
    with suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    target.close()
