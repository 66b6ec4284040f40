"""The world outside of runs: it counts who calls, and lets callers of a gate wait."""

from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Semaphore, Thread
from typing import Any, Final

_PATIENCE_SECONDS: Final = 90


class Gates(ThreadingHTTPServer):
    """Answers at once, but calls of ``/gate…`` only when that gate is opened."""

    daemon_threads = True

    def __init__(self, host: str) -> None:
        super().__init__(("127.0.0.1" if host == "127.0.0.1" else "0.0.0.0", 0), _Answer)
        self._url = f"http://{host}:{self.server_port}"
        self.calls = Counter[str]()
        """How often a path was called."""
        self.arrivals: defaultdict[str, Semaphore] = defaultdict(lambda: Semaphore(0))
        self.gates: defaultdict[str, Event] = defaultdict(Event)

    def node(self, path: str, *needs: str) -> dict[str, Any]:
        """A node with effects that calls this path."""
        given = {"url": self._url + path, "method": "POST"}
        return {"type": "http.request", "needs": list(needs), "with": given}

    def arrived(self, path: str) -> None:
        """Wait for the next call of it."""
        assert self.arrivals[path].acquire(timeout=_PATIENCE_SECONDS), f"nobody calls {path}"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        gates = self.server
        assert isinstance(gates, Gates)
        gates.calls[self.path] += 1
        gates.arrivals[self.path].release()
        if self.path.startswith("/gate"):
            gates.gates[self.path].wait()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def open_gates(host: str) -> Generator[Gates]:
    """A server that others reach at ``host``, until the block ends."""
    with Gates(host) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            for gate in server.gates.values():
                gate.set()
            server.shutdown()
            thread.join()
