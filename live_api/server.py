"""The API as a process.

SIGTERM ─► stop accepting ─► live streams end ─► requests under way finish ─► connections close
                             (clients resume
                              elsewhere)
"""

import socket
import ssl
from typing import cast

from fastapi import FastAPI

from foundation.settings import Limits, Settings
from foundation.telemetry.logs import configure_logs
from live_api.app import create_app
from live_api.dependencies import Services
from live_api.serving import (
    HttpServer,
    listen,
    require_settings,
    server_tls,
    settle_interpreter,
)
from live_api.streams.messages import MAX_MESSAGE_BYTES


def run(settings: Settings, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for requests under way.

    Raises CannotListen where the port is busy or the address is not ours, and NotConfigured where
    no database or no Redis is named, or the certificate is no good.
    """
    configure_logs(settings.log_format)
    require_settings(settings, "database_url", "redis_url")
    app = create_app(settings, limits)
    # Before anything connects: a busy port is the one thing that often goes wrong.
    tls = server_tls(settings)
    listener = listen("the API", "API", settings.api_host, settings.api_port)
    settle_interpreter()
    Server(app, tls).run(sockets=[listener])


class Server(HttpServer):
    """Ends live streams before it waits for requests to finish: they never would."""

    def __init__(self, app: FastAPI, tls: ssl.SSLContext | None = None) -> None:
        self._app = app
        super().__init__(app, "The API", tls)
        # Events are compressed anew for each client, at several times the cost of all the rest, and
        # a browser offers it whether or not it is worth that.
        self.config.ws_per_message_deflate = False
        # What is a little too long is told so by the application; this bounds what is read at all.
        self.config.ws_max_size = 2 * MAX_MESSAGE_BYTES

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what goes on for ever, then everything else in order."""
        await cast("Services", self._app.state.services).streams.hub.close()
        await super().shutdown(sockets)
