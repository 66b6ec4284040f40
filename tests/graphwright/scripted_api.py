"""A server that answers as a test tells it: for faults that the API cannot be asked for."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from graphwright.client import Retry

QUICK = Retry(attempts=3, stream_attempts=3, first_seconds=0.001, longest_seconds=1)
RUN: dict[str, Any] = {"run_id": "r", "status": "queued", "links": {}}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    hang_up: bool = False
    """Close the connection instead of answering, or behind the body."""


class Api:
    """Answers by ``replies``, one after the other, the last for ever; ``requests`` has all."""

    def __init__(self, *replies: Reply | Callable[[Request], Reply]) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, request: Request) -> Reply:
        with self.lock:
            self.requests.append(request)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply if isinstance(reply, Reply) else reply(request)


@contextmanager
def api(*replies: Reply | Callable[[Request], Reply]) -> Generator[Api]:
    told = Api(*replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            reply = told.answer(Request(self.command, self.path, dict(self.headers), body))
            if reply.hang_up and reply.content is None:
                self.close_connection = True
                return
            raw = reply.content if isinstance(reply.content, bytes) else None
            content = json.dumps(reply.content).encode() if raw is None else raw
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.hang_up:
                self.send_header("Connection", "close")
                self.close_connection = True
            else:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - as the library calls them

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def problem(status: int, code: str, **members: Any) -> Reply:
    headers = {"Content-Type": "application/problem+json", **members.pop("headers", {})}
    content = {"status": status, "code": code, "detail": f"{code}!", "request_id": "q", **members}
    return Reply(status, content, headers)
