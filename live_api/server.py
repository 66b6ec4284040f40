"""The API as a process: uvicorn with uvloop and httptools, and an orderly end.

SIGTERM ─► stop accepting ─► live streams end ─► requests under way finish ─► connections close
                             (clients resume
                              elsewhere)
"""

import socket
from typing import cast

import uvicorn
from fastapi import FastAPI

from foundation.settings import Limits, Settings
from live_api.app import create_app
from live_api.dependencies import Services

_SHUTDOWN_SECONDS = 10


def run(settings: Settings, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT; a second signal does not wait for requests under way.

    Raises SystemExit where the address is taken.
    """
    app = create_app(settings, limits)
    Server(app, host=settings.api_host, port=settings.api_port).run()


class Server(uvicorn.Server):
    """uvicorn, which ends live streams before it waits for requests to finish: they never would."""

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._app = app
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what goes on for ever, then everything else in order."""
        await cast("Services", self._app.state.services).hub.close()
        await super().shutdown(sockets)
