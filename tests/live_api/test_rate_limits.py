"""Rate limits of tenants and addresses, shared by processes through a real Redis."""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import cast

import httpx
import psutil
import pytest
import redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from foundation.redis import AsyncRedis, async_redis
from foundation.settings import Limits, Settings
from graphwright.embedded import EmbeddedValkey
from live_api.edge.shared_counters import EXCHANGE_SECONDS, SharedCounters
from live_api.rates import Rate
from tests.clock import Clock
from tests.live_api.conftest import TokenFor, serving
from tests.live_api.test_problems import check

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def client_of(url: str) -> AsyncGenerator[AsyncRedis]:
    client = async_redis(url)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture(autouse=True)
def same_minute(clock: Clock) -> None:
    """No minute ends while a test counts."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange succeeds however long Redis takes for it."""
    monkeypatch.setattr("live_api.edge.shared_counters._REDIS_SECONDS", 60.0)


@pytest.fixture
def own_redis(tmp_path: Path) -> Generator[EmbeddedValkey]:
    """A Redis of this test's own, which it may stop."""
    server = EmbeddedValkey(tmp_path / "redis")
    yield server
    server.stop()


@pytest.mark.usefixtures("patience")
async def test_two_processes_share_a_limit(redis_url: str) -> None:
    """What one has counted, the other knows after one exchange: the error is what comes between."""
    async with client_of(redis_url) as first, client_of(redis_url) as second:
        counters = SharedCounters(first), SharedCounters(second)
        here, there = (Rate(100, each, "tenant") for each in counters)
        allowed = 0
        for _ in range(20):  # 20 exchanges; in each, 4 requests reach each process
            allowed += sum([rate.take("acme") for rate in (here, there) for _ in range(4)])
            for each in counters:
                assert await each.exchange()
        assert 100 <= allowed <= 100 + 4
        for rate in (here, there):
            assert rate.is_used_up("acme")
            assert rate.left("acme")[0] == 0
            assert rate.take("other")
        assert here.left("acme")[1] == there.left("acme")[1]


@pytest.mark.usefixtures("patience")
async def test_counts_reach_others_by_themselves(redis_url: str) -> None:
    async with (
        client_of(redis_url) as client,
        SharedCounters(client) as here,
        SharedCounters(client) as there,
        asyncio.timeout(60),
    ):
        one, other = Rate(1_000, here), Rate(1_000, there)
        assert sum(one.take("a") for _ in range(1_001)) == 1_000
        assert other.take("a")  # it cannot know yet, and asks only while it counts itself
        while other.take("a"):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(EXCHANGE_SECONDS)


@pytest.mark.usefixtures("patience")
async def test_sent_twice_counts_once(redis_url: str) -> None:
    """A process writes all that it has counted, so an answer that was lost does no harm."""
    async with client_of(redis_url) as client:
        here, there = SharedCounters(client), SharedCounters(client)
        one, other = Rate(10, here), Rate(10, there)
        for _ in range(3):
            one.take("a")
            await here.exchange()
        other.take("a")
        await there.exchange()
        assert other.left("a")[0] == 10 - 4


@pytest.mark.usefixtures("patience")
async def test_redis_that_lost_everything_is_told_again(redis_url: str) -> None:
    async with client_of(redis_url) as client:
        here, there = SharedCounters(client), SharedCounters(client)
        one, other = Rate(10, here), Rate(10, there)
        for _ in range(5):
            one.take("a")
        await here.exchange()
        await client.flushdb()
        one.take("a")
        await here.exchange()
        other.take("a")
        await there.exchange()
        assert other.left("a")[0] == 10 - 7


@pytest.mark.usefixtures("patience")
async def test_a_minute_ends_at_once_everywhere(redis_url: str, clock: Clock) -> None:
    async with client_of(redis_url) as client:
        here, there = SharedCounters(client), SharedCounters(client)
        one, other = Rate(1, here), Rate(1, there)
        before = Rate(1, SharedCounters(client))
        before.take("a")
        clock.forward(before.left("a")[1])  # the minute has just begun: Redis's own clock goes on
        assert one.take("a")
        await here.exchange()
        other.take("a")
        await there.exchange()
        assert not other.take("a")
        seconds = one.left("a")[1]
        assert 1 <= seconds <= 60
        clock.forward(seconds)
        assert one.take("a")
        assert other.take("a")
        (name,) = cast("list[str]", await client.keys("graphwright:rate:*"))
        assert 60 <= await client.ttl(name) <= 120


@pytest.mark.usefixtures("patience")
async def test_redis_away(own_redis: EmbeddedValkey) -> None:
    """Each counts alone, and together again once it is back, all of the minute."""
    url = own_redis.start()
    async with client_of(url) as client:
        here, there = SharedCounters(client), SharedCounters(client)
        one, other = Rate(10, here), Rate(10, there)
        assert one.take("a")
        assert await here.exchange()
        own_redis.stop()
        for rate in (one, other):
            for _ in range(3):
                assert rate.take("a")
        assert not await here.exchange()
        assert not await there.exchange()
        assert own_redis.start() == url
        assert await here.exchange()
        assert await there.exchange()
        assert other.left("a")[0] == 10 - 7


def slowly(answers: Iterable[int]) -> Iterator[int]:
    """One at an exchange, so that each may be told what came before."""
    for answer in answers:
        yield answer
        time.sleep(EXCHANGE_SECONDS)


@contextmanager
def standing_still(redis_url: str) -> Generator[None]:
    with redis.from_url(redis_url) as client:
        process = psutil.Process(cast("dict[str, int]", client.info("server"))["process_id"])
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_tenant_has_so_many_requests_a_minute(
    settings: Settings, limits: Limits, token_for: TokenFor
) -> None:
    few = settings.model_copy(update={"requests_per_minute": 3})
    with serving(few, limits) as url, httpx.Client(base_url=url, timeout=60) as client:
        acme = bearer(token_for("acme"))
        left: list[str] = []
        for _ in range(3):
            answer = client.get("/api/v1/graphs", headers=acme)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"tenant";q=3;w=60'
            left.append(answer.headers["ratelimit"])
        seconds = left[0].rpartition("=")[2]
        assert left == [f'"tenant";r={number};t={seconds}' for number in (2, 1, 0)]
        refused = client.post("/api/v1/graphs", headers=acme, json={})
        problem = check(refused, 429, "rate_limited")
        assert problem["limit"] == "tenant"
        assert refused.headers["retry-after"] == seconds
        stream = f"{url.replace('http', 'ws')}/api/v1/runs/{uuid.uuid4()}/ws"
        with (
            connect(stream, additional_headers=acme) as socket,
            pytest.raises(ConnectionClosed) as closed,
        ):
            socket.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4429, "rate_limited")
        other = client.get("/api/v1/graphs", headers=bearer(token_for("other")))
        assert other.status_code == 200


def test_bad_tokens_of_an_address_are_bounded_and_good_ones_are_not(
    settings: Settings, limits: Limits, token_for: TokenFor
) -> None:
    few = settings.model_copy(update={"requests_per_minute_address": 3})
    with serving(few, limits) as url, httpx.Client(base_url=url, timeout=60) as client:
        good, bad = bearer(token_for()), bearer("a.b.c")
        for headers in (bad, {}, bad):
            answer = client.get("/api/v1/graphs", headers=headers)
            check(answer, 401, "unauthenticated")
            assert answer.headers["ratelimit-policy"] == '"address";q=3;w=60'
        assert answer.headers["ratelimit"].startswith('"address";r=0;t=')  # pyright: ignore[reportPossiblyUnboundVariable]
        for headers in (bad, {}, {"Authorization": "Basic YTpi"}):
            for path in (
                "/api/v1/graphs", "/api/v1/nothing", "/openapi.json", "/docs", "/docs?token=a.b.c",
                f"/api/v1/runs/{uuid.uuid4()}/events?token=a.b.c",
            ):  # fmt: skip
                answer = client.get(path, headers=headers)
                assert check(answer, 429, "rate_limited")["limit"] == "address"
                assert int(answer.headers["retry-after"]) >= 1
            answer = client.post("/api/v1/auth/login", headers=headers, content=b"{")
            check(answer, 429, "rate_limited")
        for path in ("/api/v1/ws", f"/api/v1/runs/{uuid.uuid4()}/ws"):
            for protocols in (None, [Subprotocol("bearer.a.b.c")]):
                with pytest.raises(InvalidStatus) as denied:
                    connect(url.replace("http", "ws") + path, subprotocols=protocols)
                assert denied.value.response.status_code == 429
        assert client.get("/api/v1/graphs", headers=good).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_addresses_make_no_tenant_forgotten(
    settings: Settings, limits: Limits, token_for: TokenFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many addresses are counted."""
    monkeypatch.setattr("live_api.edge.shared_counters.KEPT", 2)
    changed = {"requests_per_minute": 1, "trusted_proxies": ("127.0.0.1",)}
    few = settings.model_copy(update=changed)
    with serving(few, limits) as url, httpx.Client(base_url=url, timeout=60) as client:
        acme = bearer(token_for("acme"))
        assert client.get("/api/v1/graphs", headers=acme).status_code == 200
        for number in range(4):
            client.get("/docs", headers={"X-Forwarded-For": f"192.0.2.{number}"})
        check(client.get("/api/v1/graphs", headers=acme), 429, "rate_limited")


@pytest.mark.usefixtures("patience")
def test_two_api_processes_share_limits(
    settings: Settings, limits: Limits, token_for: TokenFor
) -> None:
    """What one has let through counts in the other, after the other's next exchange."""
    few = settings.model_copy(update={"requests_per_minute": 50})
    with (
        serving(few, limits) as one,
        serving(few, limits) as other,
        httpx.Client(headers=bearer(token_for()), timeout=60) as client,
    ):
        here = [client.get(f"{one}/api/v1/graphs").status_code for _ in range(51)]
        assert here == [200] * 50 + [429]
        there = itertools.takewhile(
            lambda status: status == 200,
            (client.get(f"{other}/api/v1/graphs").status_code for _ in range(50)),
        )
        assert sum(1 for _ in slowly(there)) < 50


def test_no_request_waits_for_redis(
    settings: Settings, limits: Limits, token_for: TokenFor, own_redis: EmbeddedValkey
) -> None:
    """It stands still, and holds what it is sent; then it is killed, and then it is back."""
    few = settings.model_copy(update={"redis_url": own_redis.start(), "requests_per_minute": 60})
    headers = bearer(token_for())
    with (
        serving(few, limits) as url,
        httpx.Client(base_url=url, headers=headers, timeout=60) as client,
    ):

        def ask() -> set[int]:
            return {client.get("/api/v1/graphs").status_code for _ in range(15)}

        assert ask() == {200}
        with standing_still(own_redis.url):
            assert ask() == {200}
        own_redis.stop()
        assert ask() == {200}
        own_redis.start()
        assert ask() == {200}
        assert ask() == {429}
