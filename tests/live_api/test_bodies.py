"""Bodies of requests: whose are read, how much of them, and how many faults are told."""

import re
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from foundation.ids import new_id
from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.bodies import Body
from tests.live_api.test_problems import check
from tests.live_api.test_routes import routes
from tests.live_api.test_run_batches import BATCH

RUNS = "/api/v1/graphs/any/runs"
AUTH = "/api/v1/auth/refresh"
KIB = 2**10


@pytest.mark.parametrize("token", ["", "a.b.c"])
def test_a_strangers_body_is_not_read(anonymous: httpx.Client, token: str) -> None:
    """Whatever it holds, the answer is that of no token, from every route that asks for one."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    seen = 0
    for method, path in routes(anonymous):
        if method != "GET":
            answer = anonymous.request(method, path, headers=headers, content=b"{")
            check(answer, 401, "unauthenticated")
            seen += 1
    assert seen > 20


def test_a_stranger_is_answered_before_the_body_has_come(api_url: str) -> None:
    address = urlsplit(api_url)
    head = (
        f"POST {RUNS} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


@pytest.fixture
def limits() -> Limits:
    return Limits(max_document_bytes=200 * KIB, max_params_bytes=10 * KIB)


@pytest.mark.parametrize(
    ("method", "path", "most", "setting"),
    [
        ("POST", AUTH, 16, ""),
        ("POST", RUNS, 10 + 64, "GRAPHWRIGHT_MAX_PARAMS_BYTES"),
        ("POST", "/api/v1/tokens", 10 + 64, "GRAPHWRIGHT_MAX_PARAMS_BYTES"),
        ("POST", BATCH, 200, "GRAPHWRIGHT_MAX_DOCUMENT_BYTES"),
        ("POST", "/api/v1/graphs", 200, "GRAPHWRIGHT_MAX_DOCUMENT_BYTES"),
        ("POST", "/api/v1/graphs/validate", 200, "GRAPHWRIGHT_MAX_DOCUMENT_BYTES"),
        ("PUT", "/api/v1/graphs/any/draft", 200, "GRAPHWRIGHT_MAX_DOCUMENT_BYTES"),
    ],
)
def test_a_body_is_as_long_as_its_path_needs(
    client: httpx.Client, method: str, path: str, most: int, setting: str
) -> None:
    def send(size: int) -> httpx.Response:
        return client.request(
            method, path, content=b" " * size, headers={"Content-Type": "application/json"}
        )

    check(send(most * KIB), 422, "invalid")
    problem = check(send(most * KIB + 1), 413, "too_large")
    assert f"{most * KIB:,} bytes" in str(problem["detail"])
    assert re.findall("GRAPHWRIGHT_[A-Z_]+", str(problem["hint"])) == ([setting] if setting else [])


def errors(answer: httpx.Response) -> list[dict[str, Any]]:
    found: Any = check(answer, 422, "invalid")["errors"]
    return found


def test_an_answer_names_a_hundred_faults(client: httpx.Client) -> None:
    for count in (100, 101, 1_999):
        given = {f"unknown{number}": 1 for number in range(count)}
        told = errors(client.post(RUNS, json=given))
        assert {fault["code"] for fault in told[:100]} == {"extra_forbidden"}
        last = {"pointer": "", "code": "too_many_faults", "message": f"And {count - 100:,} more."}
        assert [fault | {"hint": ""} for fault in told[100:]] == (
            [last | {"hint": ""}] if count > 100 else []
        )


def test_thousands_of_faults_are_counted_only(client: httpx.Client) -> None:
    """Each is one object of Python's less."""
    unknown = {f"u{number}": 1 for number in range(2_001)}
    (fault,) = errors(client.post(RUNS, json=unknown))
    assert (fault["code"], fault["message"]) == ("too_many_faults", "There are 2,001 faults here.")
    runs = [{"graph": "any", "a": 1, "b": 1, "c": 1} for _ in range(1_000)]
    (fault,) = errors(client.post(BATCH, json={"runs": runs}))
    assert fault["message"] == "There are 3,000 faults here."
    (fault,) = errors(client.post(BATCH, json={"runs": [{"graph": "any"}, unknown]}))
    assert fault["pointer"] == "/runs/1"


def test_no_route_tells_all_faults_of_a_megabyte(settings: Settings, limits: Limits) -> None:
    """What FastAPI reads is a ``Body``, but for documents, which have a limit of their own."""
    paths = create_app(settings, limits).openapi()["paths"]
    described = [each.get("requestBody") for path in paths.values() for each in path.values()]
    read = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert len(read) > 8
    assert read - {each.__name__ for each in Body.__subclasses__()} == {"GraphDocument"}


def test_a_stranger_may_log_in(anonymous: httpx.Client) -> None:
    """Below /auth bodies are read, with a token that is no good too."""
    for headers in ({}, {"Authorization": "Bearer a.b.c"}):
        given = {"refresh_token": new_id()}
        answer = anonymous.post(AUTH, json=given, headers=headers)
        assert check(answer, 401, "unauthenticated")["detail"] == "the session is over"
        assert errors(anonymous.post(AUTH, json={}, headers=headers))
