"""An HTTP process: uvicorn with uvloop and httptools, and an orderly end.

SIGTERM ─► stop accepting ─► requests under way finish ─► connections close
"""

import logging
import socket
import ssl
import sys

import uvicorn
from fastapi import FastAPI

from foundation.errors import GraphwrightError
from foundation.garbage import collect_seldom
from foundation.settings import Settings

_log = logging.getLogger("uvicorn.error")  # uvicorn sets this one up

_SHUTDOWN_SECONDS = 10
_BACKLOG = 2_048
_SWITCH_SECONDS = 0.0005


class NotConfigured(GraphwrightError):
    """A setting without which the process cannot serve is missing."""

    code = "not_configured"


class CannotListen(GraphwrightError):
    """The port is busy, or the address is not one of this machine's."""

    code = "cannot_listen"


def require_settings(settings: Settings, *names: str) -> None:
    """Raise NotConfigured where one of these is empty."""
    for name in names:
        if not getattr(settings, name):
            raise NotConfigured(
                f"GRAPHWRIGHT_{name.upper()} is not set, and no stack runs in {settings.state}",
                hint="`graphwright up` starts a local stack.",
            )


def settle_interpreter() -> None:
    """Figures are in docs/adr/0006-api-server.md."""
    collect_seldom()
    # While a thread compiles a graph, the event loop waits this long for each turn of its own.
    sys.setswitchinterval(_SWITCH_SECONDS)


def listen(name: str, setting: str, host: str, port: int) -> socket.socket:
    """A listening socket. ``setting`` is what GRAPHWRIGHT_…_PORT and …_HOST begin with.

    Raises CannotListen.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CannotListen(
            f"{name} cannot listen on {host}, port {port}: {error.strerror}",
            hint=f"GRAPHWRIGHT_{setting}_PORT names another port, GRAPHWRIGHT_{setting}_HOST "
            "another address.",
        ) from error


def server_tls(settings: Settings) -> ssl.SSLContext | None:
    """What HTTPS is served with; None where HTTP is.

    Raises NotConfigured for files that are no good.
    """
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password here, OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one
        raise NotConfigured(
            f"{certificate} and {key} cannot be served: {error}",
            hint="GRAPHWRIGHT_TLS_CERTIFICATE_FILE and GRAPHWRIGHT_TLS_KEY_FILE name a certificate "
            "and its key, as PEM and without a password.",
        ) from error
    return context


class HttpServer(uvicorn.Server):
    """uvicorn as every process of ours runs it."""

    def __init__(self, app: FastAPI, name: str, tls: ssl.SSLContext | None = None) -> None:
        self._name = name
        super().__init__(
            uvicorn.Config(
                app,
                port=0,  # where no socket is given: any free one, on loopback
                backlog=_BACKLOG,
                loop="uvloop",
                http="httptools",
                ws="websockets-sansio",
                lifespan="on",
                access_log=False,
                log_config=None,  # ours
                proxy_headers=False,  # the application knows whom to believe
                server_header=False,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )

    @property
    def url(self) -> str:
        """Where it listens, once it has started: port 0 has become a free one."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"{'https' if self.config.is_ssl else 'http'}://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept; says where, which uvicorn does not for a socket."""
        await super().startup(sockets)
        if self.started:
            _log.info("%s listens on %s", self._name, self.url)
