"""What every answer carries, and what the edge does with odd requests."""

import gzip
import json
import os
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
import zstandard
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.edge.addresses import proxies
from live_api.edge.compression import compression
from tests.live_api.conftest import TokenFor, serving, serving_app
from tests.live_api.test_graphs import document
from tests.live_api.test_problems import check

pytestmark = pytest.mark.anyio

PAGE = "https://app.example.org"


def serving_with(settings: Settings, limits: Limits, **changed: Any) -> AbstractContextManager[str]:
    return serving(settings.model_copy(update=changed), limits)


def test_security_headers(anonymous: httpx.Client) -> None:
    for path in ("/healthz", "/api/v1/graphs", "/nothing"):
        headers = anonymous.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers  # over plain HTTP it means nothing


def test_what_fails_unforeseen_has_the_same_headers(
    settings: Settings, limits: Limits, anonymous: httpx.Client
) -> None:
    app = create_app(settings.model_copy(update={"cors_origins": (PAGE,)}), limits)

    @app.get("/fails", tags=["health"])
    async def fail() -> None:  # pyright: ignore[reportUnusedFunction]
        raise RuntimeError("a secret of ours")

    with serving_app(app) as url:
        answer = httpx.get(f"{url}/fails", headers={"Origin": PAGE}, timeout=30)
        problem = check(answer, 500, "internal")
        assert "secret" not in answer.text
        assert str(problem["request_id"]) in str(problem["hint"])
        for name in ("cache-control", "x-content-type-options", "ratelimit"):
            assert name in answer.headers
        assert answer.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    ("trusted", "sent", "client", "scheme"),
    [
        ((), {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}, "127.0.0.1", "http"),
        (("10.0.0.0/8",), {"X-Forwarded-For": "192.0.2.1"}, "127.0.0.1", "http"),
        (("127.0.0.1",), {"X-Forwarded-For": "192.0.2.1"}, "192.0.2.1", "http"),
        (("127.0.0.1",), {"X-Forwarded-Proto": "https"}, "127.0.0.1", "https"),
        # What the client has made up comes before what the proxy has added.
        (("127.0.0.0/8",), {"X-Forwarded-For": "1.1.1.1, 192.0.2.1"}, "192.0.2.1", "http"),
        (("127.0.0.1", "10.0.0.0/8"), {"X-Forwarded-For": "::1, 10.1.1.1"}, "::1", "http"),
    ],
)  # fmt: skip
async def test_who_calls_behind_a_proxy(
    trusted: tuple[str, ...], sent: dict[str, str], client: str, scheme: str
) -> None:
    async def echo(request: Request) -> Response:
        assert request.client is not None
        return JSONResponse({"client": request.client.host, "scheme": request.url.scheme})

    app = Starlette(routes=[Route("/", echo)], middleware=proxies(trusted))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as caller:
        assert (await caller.get("/", headers=sent)).json() == {"client": client, "scheme": scheme}


def test_https_is_kept_to(settings: Settings, limits: Limits) -> None:
    with serving_with(settings, limits, trusted_proxies=("127.0.0.1",)) as url:
        answer = httpx.get(f"{url}/healthz", headers={"X-Forwarded-Proto": "https"}, timeout=30)
        assert answer.headers["strict-transport-security"] == "max-age=63072000; includeSubDomains"


@pytest.mark.parametrize(
    "wrong", [{"trusted_proxies": "proxy.example.org"}, {"cors_origins": "app.example.org"}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(wrong)


def test_settings_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHWRIGHT_CORS_ORIGINS", f"{PAGE}, http://localhost:5173")
    monkeypatch.setenv("GRAPHWRIGHT_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    assert Settings().cors_origins == (PAGE, "http://localhost:5173")
    assert Settings().trusted_proxies == ("10.0.0.0/8", "::1")


def test_pages_of_other_origins(settings: Settings, limits: Limits, token_for: TokenFor) -> None:
    preflight = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "authorization, if-match, idempotency-key",
    }
    with (
        serving_with(settings, limits, cors_origins=(PAGE,)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        allowed = client.options("/api/v1/graphs", headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in allowed.headers
        assert client.options(
            "/api/v1/graphs", headers=preflight | {"Origin": "https://evil.org"}
        ).is_error
        token = {"Authorization": f"Bearer {token_for()}"}
        answer = client.get("/api/v1/graphs", headers=token | {"Origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert {"ETag", "RateLimit"} <= set(
            answer.headers["access-control-expose-headers"].split(", ")
        )
        other = client.get("/api/v1/graphs", headers=token | {"Origin": "https://evil.org"})
        assert "access-control-allow-origin" not in other.headers


def test_no_page_may_by_default(anonymous: httpx.Client) -> None:
    answer = anonymous.get("/healthz", headers={"Origin": PAGE})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_compression(anonymous: httpx.Client) -> None:
    sizes: list[int] = []
    for accepted, encoding in {"br": None, "gzip": "gzip", "gzip, zstd": "zstd"}.items():
        headers = {"Accept-Encoding": accepted}
        with anonymous.stream("GET", "/openapi.json", headers=headers) as answer:
            body = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == encoding
        assert "Accept-Encoding" in answer.headers["vary"]
        sizes.append(len(body))
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "zstd":
            body = zstandard.ZstdDecompressor().stream_reader(body).readall()
        assert json.loads(body)["openapi"].startswith("3.1")
    assert sizes[0] > 4 * max(sizes[1:])
    small = anonymous.get("/healthz", headers={"Accept-Encoding": "gzip, zstd"})
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize("accepted", ["identity", "gzip", "zstd"])
async def test_big_answers_give_others_their_turn(accepted: str) -> None:
    """A body is sent as it is, whole, and in pieces between which the event loop turns."""
    content = os.urandom(2**20) + b"end"

    async def big(_request: Request) -> Response:
        return Response(content, media_type="application/json")

    pieces = 0
    app = Starlette(routes=[Route("/", big)], middleware=compression())

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        async def count(message: Any) -> None:
            nonlocal pieces
            pieces += message["type"] == "http.response.body"
            await send(message)

        await app(scope, receive, count)

    transport = httpx.ASGITransport(counted)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.get("/", headers={"Accept-Encoding": accepted})
    assert answer.content == content
    assert pieces > 4


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    for path in ("/healthz", "/api/v1/graphs", "/api/v1/graphs/nothing", "/openapi.json"):
        got, asked = client.get(path), client.head(path)
        assert asked.status_code == got.status_code
        assert asked.content == b""
        assert asked.headers["content-type"] == got.headers["content-type"]
        assert asked.headers.get("content-length") == got.headers.get("content-length")


def test_wrong_method_names_the_right_ones(client: httpx.Client) -> None:
    for method in ("DELETE", "PATCH", "OPTIONS", "QUERY"):
        answer = client.request(method, "/api/v1/graphs")
        check(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD, POST"


ODD_ADDRESSES = [
    "/api/v1/graphs/%00",
    "/api/v1/graphs/%ff",
    "/api/v1/runs/%ed%a0%80",
    "/api/v1/graphs?cursor=%00",
    "/api/v1/graphs?limit=1e400",
    f"/api/v1/graphs?limit={'9' * 5_000}",
    "/api/v1/runs?graph=%00",
    "/api/v1/runs?graph=%ed%a0%80",
    "/api/v1/runs?error=%00",
    "/api/v1/secrets/%00",
    "/api/v1/deliveries?graph=a%00",
    "/%2e%2e/%00",
    f"/api/v1/runs/{'a' * 60_000}",
]


def test_odd_addresses_are_the_callers_fault(client: httpx.Client) -> None:
    for path in ODD_ADDRESSES:
        answer = client.get(path)
        assert 400 <= answer.status_code < 500, (path[:100], answer.text)
        check(answer, answer.status_code, answer.json()["code"])


ODD_BODIES = [
    b"", b"null", b"[]", b"0", b'"', b"{", b"\x00", b"\xff\xfe", b'{"params": {"a": "\\u0000"}}',
    b'{"params": {"a": "\\ud800"}}', b'{"params": {"\\ud800": 1}}', b'{"params": {"a\\u0000": 1}}',
    b'{"params": {"a": 1e400}}', b'{"params": {"a": NaN}}', b'{"priority": 1e400}',
    b'{"params": {"a": ' + b"9" * 10_000 + b"}}", b'{"priority": ' + b"9" * 400 + b"}",
    b"[" * 100_000, b'{"params": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, b'{"\\ud800": 1}',
    b'{"value": "\\ud800"}', b'{"value": "\\u0000"}', b'{"value": 1}',
]  # fmt: skip


def test_odd_bodies_are_the_callers_fault(client: httpx.Client) -> None:
    client.post("/api/v1/graphs", json=document()).raise_for_status()
    runs = f"/api/v1/graphs/{document()['metadata']['name']}/runs"
    routes = [("POST", "/api/v1/graphs"), ("POST", runs), ("PUT", "/api/v1/secrets/name")]
    for method, path in routes:
        for kind in ("application/json", "text/plain", "application/yaml"):
            for body in ODD_BODIES:
                headers = {"Content-Type": kind}
                answer = client.request(method, path, content=body, headers=headers)
                assert answer.status_code != 400  # what cannot be read is 422 everywhere
                assert answer.status_code < 500, (method, path, kind, body[:100], answer.text)
                if answer.is_error:
                    check(answer, answer.status_code, answer.json()["code"])
