import asyncio
import gzip
import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from node_types.base import NodeError, NodePolicy
from node_types.http_request import HttpRequest, Request
from node_types.support.outbound import AddressRefused, CheckedTransport, is_public
from tests.node_types.conftest import ContextFor
from tests.node_types.running import run

PRIVATE = NodePolicy(http_private=True, max_input_bytes=100_000)
PUBLIC = NodePolicy()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> "Server":
        assert isinstance(self.server, Server)
        return self.server

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size).decode()
        self.owner.seen.append((self.command, self.path, dict(self.headers), body))
        path = self.path.partition("?")[0]
        if path.startswith("/status/"):
            self.answer(int(path.removeprefix("/status/")), b"no", "text/plain")
        elif path.startswith("/redirect/"):
            self.answer(302, b"", "text/plain", Location=self.owner.targets[path[10:]])
        elif path.startswith("/passed-on/"):
            self.answer(307, b"", "text/plain", Location=self.owner.targets[path[11:]])
        elif path == "/loop":
            self.answer(302, b"", "text/plain", Location="/loop")
        elif path == "/large":
            self.answer(200, b"x" * 100_001, "text/plain")
        elif path == "/bomb":
            body_bytes = gzip.compress(b"\0" * 10_000_000)
            self.answer(200, body_bytes, "text/plain", **{"Content-Encoding": "gzip"})
        elif path == "/text":
            self.answer(200, "né".encode("latin-1"), "text/plain; charset=latin-1")
        elif path == "/binary":
            self.answer(200, b"\xff\xfe\xfd", "application/octet-stream")
        elif path == "/broken":
            self.answer(200, b"{", "application/problem+json")
        elif path == "/silent":
            self.owner.released.wait(30)
            self.close_connection = True
        else:
            told = {"method": self.command, "path": self.path, "body": body}
            self.answer(200, json.dumps(told).encode(), "application/json")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def answer(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, dict[str, str], str]] = []
        self.targets: dict[str, str] = {}
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def other() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def call(context_for: ContextFor, policy: NodePolicy = PRIVATE, **fields: Any) -> Any:
    given = Request.model_validate(fields)
    return run(HttpRequest(), given, context_for(policy)).model_dump(mode="json")


def refused(context_for: ContextFor, policy: NodePolicy = PRIVATE, **fields: Any) -> NodeError:
    with pytest.raises(NodeError) as raised:
        call(context_for, policy, **fields)
    return raised.value


def test_sends_what_it_is_given(server: Server, context_for: ContextFor) -> None:
    output = call(
        context_for,
        url=f"{server.url}/echo?a=1",
        method="POST",
        query={"b": "x y", "c": 2, "d": True},
        headers={"X-Own": "yes"},
        json={"n": [1, None]},
    )
    assert output["status"] == 200
    assert output["headers"]["content-type"] == "application/json"
    assert output["body"] is None
    assert output["json"] == {
        "method": "POST",
        "path": "/echo?a=1&b=x+y&c=2&d=true",
        "body": '{"n":[1,null]}',
    }
    ((_, _, headers, _),) = server.seen
    assert headers["X-Own"] == "yes"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"].startswith("run/")
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"


def test_a_safe_method_sends_no_key_and_null_is_a_body(
    server: Server, context_for: ContextFor
) -> None:
    call(context_for, url=f"{server.url}/echo")
    call(context_for, url=f"{server.url}/echo", method="PUT", json=None)
    call(context_for, url=f"{server.url}/echo", method="PUT", body="né")
    assert "Idempotency-Key" not in server.seen[0][2]
    assert [body for _, _, _, body in server.seen] == ["", "null", "né"]


def test_text_comes_in_its_own_encoding(server: Server, context_for: ContextFor) -> None:
    output = call(context_for, url=f"{server.url}/text")
    assert (output["body"], output["json"]) == ("né", None)
    output = call(context_for, url=f"{server.url}/text", method="HEAD")
    assert output["body"] == ""


def test_statuses(server: Server, context_for: ContextFor) -> None:
    assert call(context_for, url=f"{server.url}/status/204")["status"] == 204
    error = refused(context_for, url=f"{server.url}/status/404?token=secret")
    assert error.code == "unexpected_status"
    assert error.ids == {"status": "404"}
    assert "secret" not in error.message
    assert call(context_for, url=f"{server.url}/status/404", expect=[404])["status"] == 404
    error = refused(context_for, url=f"{server.url}/echo", expect=[404])
    assert error.code == "unexpected_status"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("large", "response_too_large"),
        ("bomb", "response_too_large"),
        ("binary", "response_unreadable"),
        ("broken", "response_unreadable"),
        ("loop", "request_failed"),
    ],
)
def test_answers_that_are_refused(
    path: str, code: str, server: Server, context_for: ContextFor
) -> None:
    assert refused(context_for, url=f"{server.url}/{path}").code == code


def test_time_is_bounded(server: Server, context_for: ContextFor) -> None:
    error = refused(context_for, url=f"{server.url}/silent", timeout_seconds=0.1)
    assert error.code == "request_failed"
    assert "0.1 s" in error.message


def test_no_answer_is_a_fault_of_the_request(context_for: ContextFor) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = refused(context_for, url=f"http://127.0.0.1:{port}/?token=secret")
    assert error.code == "request_failed"
    assert "secret" not in error.message
    error = refused(context_for, url="http://no-such-host.invalid/secret")
    assert error.code == "request_failed"
    assert "secret" not in error.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "0"])
def test_private_addresses_are_refused(host: str, server: Server, context_for: ContextFor) -> None:
    error = refused(context_for, PUBLIC, url=f"http://{host}:{server.server_port}/echo")
    assert error.code in {"address_not_allowed", "request_failed"}  # some hosts have no IPv6
    assert server.seen == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(
    server: Server, context_for: ContextFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name's second answer is another than the one that was checked."""
    answers = iter(["127.0.0.1", "203.0.113.1"])
    asked: list[Any] = []

    def resolve(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        address = (next(answers), port)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address)]

    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **fields: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        return (resolve if name == "rebound.example" else real)(host, port, *args, **fields)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    output = call(context_for, url=f"http://rebound.example:{server.server_port}/echo")
    assert output["status"] == 200
    assert len(asked) == 1
    assert server.seen[0][2]["Host"] == f"rebound.example:{server.server_port}"


def test_redirects_are_followed(server: Server, context_for: ContextFor) -> None:
    server.targets["on"] = "/echo"
    assert call(context_for, url=f"{server.url}/redirect/on")["json"]["path"] == "/echo"
    server.targets["out"] = "file:///etc/passwd"
    assert refused(context_for, url=f"{server.url}/redirect/out").code == "request_failed"


def test_what_a_redirect_leads_to_is_checked_too(server: Server) -> None:
    """A public host sends us on to a private one; here 127.0.0.2 stands for the private one."""
    server.targets["private"] = f"http://127.0.0.2:{server.server_port}/echo"
    public = ipaddress.ip_address("127.0.0.1")

    async def follow() -> None:
        transport = CheckedTransport(lambda address: address == public)
        async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
            await client.get(f"{server.url}/redirect/private")

    with pytest.raises(AddressRefused):
        asyncio.run(follow())
    assert [path for _, path, _, _ in server.seen] == ["/redirect/private"]


def test_headers_go_to_no_other_origin(
    server: Server, other: Server, context_for: ContextFor
) -> None:
    server.targets["other"] = f"{other.url}/echo"
    server.targets["same"] = "/echo"
    headers = {"Authorization": "Bearer secret", "X-Api-Key": "secret"}
    call(context_for, url=f"{server.url}/redirect/same", headers=headers)
    assert server.seen[-1][2]["X-Api-Key"] == "secret"
    call(context_for, url=f"{server.url}/redirect/other", headers=headers)
    assert "secret" not in str(other.seen[-1])


def test_a_body_goes_to_no_other_origin(
    server: Server, other: Server, context_for: ContextFor
) -> None:
    server.targets["other"] = f"{other.url}/echo"
    server.targets["same"] = "/echo"
    given: dict[str, Any] = {"method": "POST", "json": {"key": "secret"}}
    call(context_for, url=f"{server.url}/passed-on/same", **given)
    assert "secret" in server.seen[-1][3]
    error = refused(context_for, url=f"{server.url}/passed-on/other", **given)
    assert error.code == "request_failed"
    assert other.seen == []


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://"},
        {"url": "http://[::1"},
        {"url": "http://example.org:99999"},
        {"url": "http://example.org", "headers": {"A": "line\nbreak-secret"}},
        {"url": "http://example.org", "headers": {"A b": "secret"}},
        {"url": "http://example.org", "headers": {"A": "né-secret"}},
    ],
)
def test_what_cannot_be_sent(fields: dict[str, Any], context_for: ContextFor) -> None:
    error = refused(context_for, **fields, timeout_seconds=5)
    assert error.code in {"invalid_request", "request_failed"}
    assert "secret" not in error.message + error.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "ftp://x"},
        {"url": "/relative"},
        {"url": "http://x", "json": 1, "body": "x"},
        {"url": "http://x", "method": "TRACE"},
        {"url": "http://x", "timeout_seconds": 0},
        {"url": "http://x", "expect": []},
        {"url": "http://x", "query": {"a": [1]}},
        {"url": "http://x", "verify": False},
    ],
)
def test_fields_that_do_not_fit(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Request.model_validate(fields)
