"""``/metrics``, ``/healthz`` and ``/readyz`` of one process, on a port of their own.

From a thread, so that they answer while the event loop is busy, and ``/healthz`` can say that it
hangs. Worker processes share one listener: whichever is free answers for all of them.
"""

import os
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import Any, ClassVar, Final, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse

import orjson
import psutil
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    make_wsgi_app,  # pyright: ignore[reportUnknownVariableType]
    multiprocess,
)

from foundation.errors import GraphwrightError
from foundation.settings import Settings
from foundation.telemetry.health import Check, report
from foundation.telemetry.metrics import AnyPool, sample_pool
from foundation.telemetry.together import VARIABLE

_BACKLOG: Final = 64
_PATIENCE_SECONDS: Final = 10
_POLL_SECONDS: Final = 0.1
"""How long it may take to stop."""

Answer = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class MetricsPortBusy(GraphwrightError):
    """The port is busy, or the address is not one of this machine's."""

    code: ClassVar[str] = "cannot_listen"


def listener_of(settings: Settings) -> socket.socket | None:
    """Where the process is to answer; None where nobody wants it to.

    Raises :class:`MetricsPortBusy`.
    """
    if not settings.metrics_port:
        return None
    host = settings.metrics_host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server(
            (host, settings.metrics_port), family=family, backlog=_BACKLOG
        )
    except OSError as error:
        raise MetricsPortBusy(
            f"metrics cannot be served on {host}, port {settings.metrics_port}: {error.strerror}",
            hint="GRAPHWRIGHT_METRICS_PORT names another port, GRAPHWRIGHT_METRICS_HOST another "
            "address; each process of ours on a host needs a port of its own.",
        ) from error
    listener.setblocking(False)  # another process that shares it may be quicker to accept
    return listener


@contextmanager
def serving(
    listener: socket.socket | None,
    alive: Sequence[Check] = (),
    ready: Sequence[Check] = (),
    pools: Mapping[str, AnyPool] | None = None,
) -> Generator[None]:
    """Answer on ``listener``, if there is one, until the block ends.

    ``/healthz`` asks ``alive``, ``/readyz`` these and ``ready``. Each look at ``/metrics`` looks at
    ``pools`` first.
    """
    if listener is None:
        yield
        return
    server = _Server(listener, _answer(alive, [*alive, *ready], pools or {}))
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(alive: Sequence[Check], ready: Sequence[Check], pools: Mapping[str, AnyPool]) -> Answer:
    def answer(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                for name, pool in pools.items():
                    sample_pool(name, pool)
                return cast("Answer", make_wsgi_app(_registry()))(environ, start)
            case "/healthz":
                return _health(alive, start)
            case "/readyz":
                return _health(ready, start)
            case _:
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /healthz, /readyz\n"]

    return answer


def _health(checks: Sequence[Check], start: StartResponse) -> Iterable[bytes]:
    well, said = report(checks)
    start(
        "200 OK" if well else "503 Service Unavailable",
        [("Content-Type", "application/json"), ("Cache-Control", "no-store")],
    )
    return [orjson.dumps(said)]


def _registry() -> CollectorRegistry:
    folder = os.environ.get(VARIABLE)
    if folder is None:
        return REGISTRY
    for name in os.listdir(folder):  # noqa: PTH208 - names are all that is wanted
        kind, _, pid = name.removesuffix(".db").rpartition("_")
        if kind.startswith("gauge_live") and not psutil.pid_exists(int(pid)):
            with suppress(FileNotFoundError):  # another look at the same moment was quicker
                multiprocess.mark_process_dead(int(pid), folder)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, folder)
    return registry


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
        """Somebody looks every few seconds: that is no news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(answer)
