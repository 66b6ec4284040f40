"""The API as a process: uvicorn with uvloop and httptools, and an orderly end.

SIGTERM ─► stop accepting ─► live streams end ─► requests under way finish ─► connections close
                             (clients resume
                              elsewhere)
"""

import gc
import logging
import socket
import sys
from typing import cast

import uvicorn
from fastapi import FastAPI

from foundation.errors import GraphwrightError
from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.dependencies import Services

_log = logging.getLogger("uvicorn.error")  # uvicorn sets this one up

_SHUTDOWN_SECONDS = 10
_BACKLOG = 2_048
_SWITCH_SECONDS = 0.0005


class NotConfigured(GraphwrightError):
    """A setting without which the API cannot serve is missing."""

    code = "not_configured"


class CannotListen(GraphwrightError):
    """The port is busy, or the address is not one of this machine's."""

    code = "cannot_listen"


def run(settings: Settings, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for requests under way.

    Raises CannotListen where the port is busy or the address is not ours, and NotConfigured where
    no database or no Redis is named.
    """
    for name in ("database_url", "redis_url"):
        if not getattr(settings, name):
            raise NotConfigured(
                f"GRAPHWRIGHT_{name.upper()} is not set, and no stack runs in {settings.state}",
                hint="`graphwright up` starts a local stack.",
            )
    app = create_app(settings, limits)
    # Before anything connects: a busy port is the one thing that often goes wrong.
    listener = _listen(settings.api_host, settings.api_port)
    _settle_interpreter()
    Server(app).run(sockets=[listener])


def _settle_interpreter() -> None:
    """Figures are in docs/adr/0006-api-server.md."""
    # What is loaded by now stays for good: full collections need not walk all of Dagster each time.
    gc.collect()
    gc.freeze()
    # While a thread compiles a graph, the event loop waits this long for each turn of its own.
    sys.setswitchinterval(_SWITCH_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise CannotListen(
            f"the API cannot listen on {host}, port {port}: {error.strerror}",
            hint="GRAPHWRIGHT_API_PORT names another port, GRAPHWRIGHT_API_HOST another address.",
        ) from error


class Server(uvicorn.Server):
    """uvicorn, which ends live streams before it waits for requests to finish: they never would."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
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
                server_header=False,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )

    @property
    def url(self) -> str:
        """Where it listens, once it has started: port 0 has become a free one."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept; says where, which uvicorn does not for a socket."""
        await super().startup(sockets)
        if self.started:
            _log.info("The API listens on %s", self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what goes on for ever, then everything else in order."""
        await cast("Services", self._app.state.services).hub.close()
        await super().shutdown(sockets)
